"""`trce doctor` and completion, as a user runs them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest

from cli.commands.doctor import examine
from cli.stack.ports import free_port
from core.checkup.check import Check
from core.checkup.device import check_driver, check_torch
from tests.models_on_disk import ModelsOnDisk
from tests.started_worker import refused_start


def trce(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_names_each_check_and_exits_with_1_for_a_problem(tmp_path, redis_url):
    done = trce("doctor", "--json", "--data-dir", str(tmp_path), REDIS_URL=redis_url)

    checks = {one["name"]: one for one in json.loads(done.stdout)}
    assert {"settings", "torch", "GPU driver", "data folder", "redis", "redis persistence"} <= {
        *checks
    }
    assert {"clock", "picture store", "signing key", "models", "port"} <= {*checks}
    assert checks["signing key"]["state"] == "problem"
    assert done.returncode == 1


def test_after_setup_nothing_is_wrong(tmp_path, redis_url):
    environ = {"REDIS_URL": redis_url, "TRCE_DATA_DIR": str(tmp_path), "TRCE_PORT": "0"}
    assert trce("setup", **environ).returncode == 0
    # Again, as before every start.
    assert trce("setup", **environ).returncode == 0

    done = trce("doctor", TRCE_SERVE_UNERASED_BASE="true", **environ)

    assert done.returncode == 0, done.stdout
    assert "1 served, every file as its manifest says" in done.stdout
    assert "default model: emoji, which is served" in done.stdout


@pytest.mark.parametrize("words", [["setup"], ["doctor"]], ids=" ".join)
def test_it_is_said_that_default_means_what_is_not_served(tmp_path, redis_url, words):
    environ = {"REDIS_URL": redis_url, "TRCE_DATA_DIR": str(tmp_path), "TRCE_PORT": "0"}
    assert trce("setup", **environ).returncode == 0
    done = trce(*words, "--json", **environ)

    (found,) = [one for one in json.loads(done.stdout) if one["name"] == "default model"]
    assert found["state"] == "warning"
    assert "emoji" in found["found"]
    assert "trce models default MODEL" in found["fix"]
    assert done.returncode == 0


def test_setup_lets_the_service_start_beside_a_model_that_was_changed(tmp_path, redis_url):
    """Nobody could retire it otherwise."""
    models = ModelsOnDisk(tmp_path)
    for model_id in ("changed", "whole"):
        models.add(model_id)
        models.promote(model_id)
    (models.folder / "changed" / "model_index.json").write_text("{ }")
    environ = {
        "REDIS_URL": redis_url,
        "TRCE_DATA_DIR": str(tmp_path),
        "TRCE_SERVE_UNERASED_BASE": "true",
    }

    done = trce("setup", "--json", **environ)

    (found,) = [one for one in json.loads(done.stdout) if one["name"] == "models"]
    assert (done.returncode, found["state"]) == (0, "warning")
    assert "model changed: model_index.json differs" in found["found"]


def test_setup_warns_of_a_collector_of_traces_that_is_away(tmp_path, redis_url):
    address = f"http://127.0.0.1:{free_port('127.0.0.1')}/v1/traces"
    environ = {"REDIS_URL": redis_url, "TRCE_DATA_DIR": str(tmp_path)}

    done = trce("setup", "--json", TRCE_TRACE_ENDPOINT=address, **environ)

    (found,) = [one for one in json.loads(done.stdout) if one["name"] == "traces"]
    assert (done.returncode, found["state"]) == (0, "warning")


def test_setup_stops_at_half_of_s3(tmp_path):
    done = trce("setup", TRCE_DATA_DIR=str(tmp_path), TRCE_S3_ENDPOINT_URL="http://127.0.0.1:1")

    assert done.returncode == 2
    assert "TRCE_S3_BUCKET" in done.stderr


def test_a_gpu_that_is_asked_for_and_not_there_is_a_problem(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))

    assert check_driver("cuda").state == "problem"
    assert check_driver("auto").state == "ok"
    assert check_torch("cuda").state == "problem"
    assert check_torch("cpu").state == "ok"


@pytest.mark.parametrize("role", ["inference", "trainer"])
def test_a_worker_does_not_come_up_without_the_gpu_that_is_asked_for(tmp_path, redis_url, role):
    environ = {"REDIS_URL": redis_url, "TRCE_DATA_DIR": str(tmp_path), "TRCE_DEVICE": "cuda"}
    told = refused_start(role, environ | {"CUDA_VISIBLE_DEVICES": ""})

    assert "TRCE_DEVICE=cuda" in told
    assert "install" in told


@pytest.mark.parametrize("said", ["Failed to initialize NVML: Driver/library version mismatch"])
def test_a_driver_that_does_not_fit_is_told_as_it_says_itself(monkeypatch, tmp_path, said):
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\necho '{said}'\nexit 18\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert check_driver("cuda").found == said


class TestWhatSomeInstallationsHave:
    """Each looked at where its setting is there, and not told of where it is not."""

    @pytest.fixture
    def look(self, monkeypatch, tmp_path, redis_url):
        """The checks by their names, under these settings."""

        def run(**settings: str) -> dict[str, Check]:
            given = {"REDIS_URL": redis_url, "TRCE_DATA_DIR": str(tmp_path), "TRCE_PORT": "0"}
            for name, value in (given | settings).items():
                monkeypatch.setenv(name, value)
            return {one.name: one for one in examine()}

        return run

    def test_without_torch_neither_it_nor_the_gpu_is_called_well(self, look, monkeypatch):
        monkeypatch.setattr("core.checkup.device.find_spec", lambda _: None)

        found = look()

        assert found["torch"].state == "warning"
        assert "looked at" in found["torch"].found
        assert "docker compose exec trainer trce doctor" in found["torch"].fix
        assert "GPU driver" not in found

    def test_a_gpu_for_each_process_of_the_trainer(self, look, monkeypatch):
        real = subprocess.run

        def told(command, **options):
            if "import json, torch" in command[-1]:
                return subprocess.CompletedProcess(command, 0, '["2.13", "13.0", ["L4"]]', "")
            return real(command, **options)

        monkeypatch.setattr(subprocess, "run", told)

        found = look(TRCE_TRAINER_PROCESSES="2")

        assert found["torch"].state == "problem"
        assert "TRCE_TRAINER_PROCESSES=1" in found["torch"].fix

    def test_a_part_of_the_data_folder_that_a_process_writes_to(self, look, monkeypatch, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        monkeypatch.setattr(os, "access", lambda path, _: path.name != "checkpoints")

        assert look()["data folder"].found == f"{tmp_path / 'checkpoints'} cannot be written"

    def test_the_port_of_the_metrics(self, look):
        port = free_port("127.0.0.1")
        assert look(TRCE_METRICS_PORT=str(port))["metrics port"].state == "ok"

        registry = prometheus_client.CollectorRegistry()
        server, _ = prometheus_client.start_http_server(port, "127.0.0.1", registry)
        try:
            check = look(TRCE_METRICS_PORT=str(port))["metrics port"]
            assert check.state == "problem"
            assert "TRCE_METRICS_PORT" in check.fix
            prometheus_client.Gauge("t2i_batch_limit", "One of ours.", registry=registry)
            assert look(TRCE_METRICS_PORT=str(port))["metrics port"].state == "ok"
        finally:
            server.shutdown()
            server.server_close()

    def test_the_pair_that_signs_content_credentials(self, look, tmp_path):
        (tmp_path / "chain.pem").write_text("no certificate")
        found = look(TRCE_C2PA_CERTIFICATES=str(tmp_path / "chain.pem"))

        assert found["content credentials"].state == "problem"
        assert "TRCE_C2PA_KEY" in found["content credentials"].found

    def test_the_collector_of_traces(self, look):
        with socket.socket() as collector:
            collector.bind(("127.0.0.1", 0))
            collector.listen()
            address = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/traces"
            assert look(TRCE_TRACE_ENDPOINT=address)["traces"].state == "ok"

        check = look(TRCE_TRACE_ENDPOINT=address)["traces"]
        assert check.state == "warning"
        assert "nobody answers at 127.0.0.1" in check.found

    def test_nobody_is_told_of_what_is_not_set(self, look):
        assert not {"metrics port", "content credentials", "traces", "torch.compile"} & set(look())


def test_the_shell_can_complete_a_command():
    environ = {"_TRCE_COMPLETE": "complete_bash", "COMP_WORDS": "trce doc", "COMP_CWORD": "1"}
    trce_command = Path(sys.executable).parent / "trce"

    done = subprocess.run(
        [trce_command], env=os.environ | environ, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["doctor"]
