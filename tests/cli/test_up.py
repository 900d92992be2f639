import socket
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from cli.stack import up as module
from cli.stack.ports import check_stack_ports, free_port, metrics_ports
from cli.stack.up import environment, folders_of_inference, on_devices_seen, prepare
from core.checkup.device import sees_gpus
from core.settings import Settings


def up(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "up", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_port_that_is_taken_is_said_to_be(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = up("--data-dir", str(tmp_path / "data"), "--port", str(port))

    assert result.returncode == 2
    assert f"port: {port} on 127.0.0.1 cannot be had" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("gpus", "seen", "given", "device"),
    [
        pytest.param(8, False, {}, "cpu", id="GPUs that torch does not see"),
        pytest.param(8, True, {}, "auto", id="GPUs"),
        pytest.param(0, False, {}, "auto", id="none"),
        pytest.param(8, False, {"inference_workers": 2}, "auto", id="as many as was said"),
        pytest.param(8, False, {"device": "cuda"}, "cuda", id="checked elsewhere"),
    ],
)
def test_workers_are_counted_by_what_torch_sees(monkeypatch, gpus, seen, given, device):
    monkeypatch.setattr(module, "count_gpus", lambda environ: gpus)
    monkeypatch.setattr(module, "sees_gpus", lambda: seen)
    with capture_logs() as told:
        settings = on_devices_seen(Settings(_env_file=None, **given))

    assert settings.device == device
    assert len(told) == (device == "cpu")


def test_torch_sees_no_gpu_that_is_hidden_from_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not sees_gpus()


class TestPortsOfMetrics:
    def test_each_process_has_its_own(self):
        settings = Settings(
            _env_file=None, metrics_port=9100, inference_workers=2, trainer_workers=1
        )

        ports = metrics_ports(settings)

        assert ports == {
            "service": 9100,
            "inference-0": 9101,
            "inference-1": 9102,
            "trainer-0": 9103,
        }

    def test_none_is_none(self):
        assert metrics_ports(Settings(_env_file=None)) == {}

    def test_one_that_is_taken_is_told_with_its_process(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            settings = Settings(_env_file=None, port=0, metrics_port=port - 1)
            found = {one.name: one for one in check_stack_ports(settings)}

        assert found["metrics port of inference-0"].state == "problem"
        assert "TRCE_METRICS_PORT" in found["metrics port of inference-0"].fix

    def test_there_are_no_more_than_65535(self):
        settings = Settings(_env_file=None, port=0, metrics_port=65534, inference_workers=2)

        *_, last = check_stack_ports(settings)

        assert last.state == "problem"
        assert "there are 65535" in last.found


def test_a_gpu_that_is_not_there_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TRCE_DEVICE", "cuda")
    result = up("--data-dir", str(tmp_path / "data"), "--port", "0")

    assert result.returncode == 2
    assert "sees no GPU, and TRCE_DEVICE=cuda" in result.stderr
    assert "listening" not in result.stdout
    assert not (tmp_path / "data" / "logs").exists()


def test_a_compiler_that_is_not_there_is_said_before_anything_starts(tmp_path, monkeypatch):
    for name, value in {"COMPILE_UNET": "true", "WARM_UP": "default", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"TRCE_{name}", value)
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = up("--data-dir", str(tmp_path / "data"), "--port", "0")

    assert result.returncode == 2
    assert "no-such-compiler" in result.stderr
    assert "TRCE_COMPILE_UNET=false" in result.stderr


def test_settings_out_of_range_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TRCE_BATCH_ROWS", "0")
    result = up("--data-dir", str(tmp_path / "data"))

    assert result.returncode == 2
    assert "TRCE_BATCH_ROWS" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_first_run_makes_a_key_and_imports_the_shipped_model(tmp_path):
    settings = prepare(Settings(_env_file=None, data_dir=tmp_path, port=0))

    assert (tmp_path / "keys" / "signing.pem").exists()
    assert (tmp_path / "keys" / "pictures" / "signing.pem").exists()
    assert all(folder.is_dir() for folder in folders_of_inference(settings))
    assert (tmp_path / "models" / "emoji" / "manifest.json").exists()
    assert settings.port > 0
    assert settings.redis_url.startswith("unix://")


def test_a_second_run_changes_nothing(tmp_path):
    prepare(Settings(_env_file=None, data_dir=tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    prepare(Settings(_env_file=None, data_dir=tmp_path))

    assert {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()
    } == before


def test_the_environment_of_children_makes_the_same_settings(tmp_path, monkeypatch):
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        redis_url="redis://localhost:1/0",
        port=free_port("127.0.0.1"),
        serve_unerased_base=True,
        lease_s=7,
        s3_bucket="pictures",
        s3_access_key_id="key",
        s3_secret_access_key="a secret",
    )
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)

    assert Settings(_env_file=None) == settings


@pytest.mark.parametrize(
    "command", ["up", "demo", "generate", "erase", "models", "keys", "policies", "audit", "verify"]
)
def test_every_command_teaches_its_use(command):
    result = subprocess.run(
        [sys.executable, "-m", "cli.main", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: " in result.stdout
