"""`trce doctor` and completion, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.checkup.device import check_driver, check_torch


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
    done = subprocess.run(
        [sys.executable, "-m", "worker", role],
        env=os.environ | environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert "TRCE_DEVICE=cuda" in done.stderr
    assert "install" in done.stderr


@pytest.mark.parametrize("said", ["Failed to initialize NVML: Driver/library version mismatch"])
def test_a_driver_that_does_not_fit_is_told_as_it_says_itself(monkeypatch, tmp_path, said):
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\necho '{said}'\nexit 18\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert check_driver("cuda").found == said


def test_the_shell_can_complete_a_command():
    environ = {"_TRCE_COMPLETE": "complete_bash", "COMP_WORDS": "trce doc", "COMP_CWORD": "1"}
    trce_command = Path(sys.executable).parent / "trce"

    done = subprocess.run(
        [trce_command], env=os.environ | environ, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["doctor"]
