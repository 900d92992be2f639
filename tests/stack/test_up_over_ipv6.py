"""`trce up` on an IPv6 address, each process with metrics of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import pytest

from cli.stack.ports import free_port

pytestmark = pytest.mark.stack

WITHIN_S = 120


def has_ipv6() -> bool:
    try:
        free_port("::1")
    except OSError:
        return False
    return True


def eventually(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            if answers():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    pytest.fail("no such answer in time")


def three_free_ports() -> int:
    """The first of three that follow one another."""
    for first in range(42000, 60000, 7):
        with socket.socket() as a, socket.socket() as b, socket.socket() as c:
            try:
                for n, probe in enumerate((a, b, c)):
                    probe.bind(("127.0.0.1", first + n))
            except OSError:
                continue
            return first
    raise AssertionError


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_it_answers_there_and_every_process_shows_its_metrics(tmp_path):
    metrics = three_free_ports()
    env = {
        "TRCE_METRICS_PORT": str(metrics),
        "TRCE_INFERENCE_WORKERS": "1",
        "TRCE_TRAINER_WORKERS": "1",
    }
    command = [sys.executable, "-m", "cli.main", "up", "--json", "--serve-base"]
    said = tmp_path / "said"
    with said.open("wb") as out:
        up = subprocess.Popen(
            [*command, "--data-dir", tmp_path / "data", "--host", "::1", "--port", "0"],
            env=os.environ | env,
            stdout=out,
        )
    try:
        eventually(lambda: said.read_text().endswith("}\n"))
        told = json.loads(said.read_text())
        assert told["url"].startswith("http://[::1]:")
        eventually(lambda: httpx.get(told["ready"]).status_code == 200)
        assert set(told["metrics"]) == {"service", "inference-0", "trainer-0"}
        of_its_own = {
            "service": "t2i_queue_depth",
            "inference-0": "t2i_batch_limit 16.0",
            "trainer-0": "t2i_erasure_progress_ratio",
        }
        for name, words in of_its_own.items():
            address = told["metrics"][name]
            eventually(lambda address=address, words=words: words in httpx.get(address).text)
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
