"""`python -m service` as a real process behind a real socket."""

import os
import signal
import subprocess
import sys

import httpx
import pytest

from core.errors import Misconfigured
from core.settings import Settings
from service.main import create_app
from tests.service.scenery import APPLE


def test_a_process_serves_bounds_bodies_and_stops_cleanly(start, service_log):
    address, process = start()
    url = f"{address}/v1/generations"

    assert httpx.post(url, json=APPLE).status_code == 202
    assert httpx.post(url, json=APPLE | {"model": "none"}).status_code == 404
    endless = (b" " * 100 for _ in range(50))
    assert httpx.post(url, content=endless).status_code == 413
    assert httpx.post(url, content=b" " * 1001).status_code == 413
    assert httpx.get(f"{url}/%ED%A0%80%00").status_code == 404

    with httpx.Client() as waiting:
        request = waiting.build_request(
            "POST", url, json=APPLE, headers={"Prefer": "wait=60"}, extensions={"timeout": {}}
        )
        import threading

        threading.Timer(0.5, process.send_signal, [signal.SIGTERM]).start()
        assert waiting.send(request).status_code == 202

    process.wait(timeout=15)
    log = service_log.read_text()
    assert "Traceback" not in log
    assert "apple" not in log


def test_a_service_without_redis_settings_does_not_start(tmp_path):
    with pytest.raises(Misconfigured, match="REDIS_URL"):
        create_app(Settings(_env_file=None, redis_url=None, data_dir=tmp_path))


def test_a_refused_start_says_why(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    ran = subprocess.run(
        [sys.executable, "-m", "service"],
        env=env | {"TRCE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert ran.stderr.startswith("cannot start: REDIS_URL is not set")
