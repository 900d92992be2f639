"""The service as a process of its own, as `trce up` starts it: what benchmarks measure."""

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.stack.broker import broker_url
from cli.stack.ports import free_port
from core.children import start_child, stop_child
from core.settings import Settings
from worker import huge_pages

READY_WITHIN_S = 180.0
GRACE_S = 60.0
OURS = ("TRCE_", "REDIS_URL", "OMP_NUM_THREADS")
"""Variables of whoever runs the benchmark that the contenders are not to see."""


@dataclass(frozen=True)
class Stack:
    """A running service."""

    url: str
    settings: Settings
    """Where its data lie and how its Redis is reached."""
    pid: int

    def model_url(self, model: str = "emoji") -> str:
        return f"{self.url}/hf/models/{model}"


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def worker_environment(threads: int = 1) -> dict[str, str]:
    """For a process that computes as a worker on a CPU: with so many threads, in huge pages."""
    return clean_environment() | huge_pages.TUNABLES | {"OMP_NUM_THREADS": str(threads)}


@contextlib.contextmanager
def running_stack(
    *options: str, workers: int | None = None, log: Path | None = None, **env: str
) -> Iterator[Stack]:
    """`trce up` with the shipped model, until the end of the block.

    Args:
        workers: inference workers; None: as many as it starts by itself.
        log: where what it says is kept; it is gone with the stack if None.
        env: further settings, as TRCE_BATCH_ROWS="4".
    """
    port = free_port("127.0.0.1")
    # Not below the repository: the path of a unix socket must be short.
    with tempfile.TemporaryDirectory(prefix="trce-bench-") as folder:
        data_dir = Path(folder) / "data"
        command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(data_dir)]
        command += ["--port", str(port), "--serve-base", *options]
        if workers is not None:
            command += ["--inference-workers", str(workers)]
        settings = {"TRCE_TRAINER_WORKERS": "0"} | env
        with (log or Path(folder) / "up.log").open("wb") as told:
            process = start_child(
                command, env=clean_environment() | settings, stdout=told, stderr=told
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url, with_workers=workers != 0)
            where = Settings(data_dir=data_dir, redis_url=broker_url(data_dir / "broker"))
            yield Stack(url, where, process.pid)
        finally:
            stop_child(process, grace_s=GRACE_S)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, *, with_workers: bool) -> None:
    address = "/readyz" if with_workers else "/healthz"

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(url + address).status_code == http.client.OK
        return False

    wait_until(process, answers)


def wait_until(process: "subprocess.Popen[bytes]", condition) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"a contender ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError("a contender is not ready")
        time.sleep(0.1)
