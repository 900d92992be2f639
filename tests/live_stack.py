"""`trce up` as a user runs it: real processes, on a free port, with the shipped model."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from cli.stack.broker import broker_url
from cli.stack.ports import free_port

READY_WITHIN_S = 120.0


def words_of(process: psutil.Process) -> str:
    """Its command line; nothing of one that has ended, buried by its parent or not yet."""
    try:
        return " ".join(process.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return ""


class Stack:
    """One `trce up` on one data folder; may be stopped, killed and started again."""

    def __init__(self, data_dir: Path, *options: str, **environment: str) -> None:
        """
        Args:
            options: of `trce up`.
            environment: settings, such as TRCE_TRAINER_WORKERS.
        """
        self.data_dir = data_dir
        self.port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self._options = options
        self._environment = {"TRCE_LEASE_S": "5"} | environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def start(self) -> None:
        command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(self.data_dir)]
        options = ["--port", str(self.port), "--serve-base", *self._options]
        broker = broker_url(self.data_dir / "broker")
        env = os.environ | self._environment | {"REDIS_URL": broker}
        with (self.data_dir.parent / "up.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *options], env=env, stdout=log, stderr=log)
        self.wait_until(lambda: self.http.get("/readyz").status_code == 200, READY_WITHIN_S)

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(90)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def members(self, words: str) -> list[psutil.Process]:
        """Processes of this stack whose command line holds `words`."""
        return [
            process
            for process in self.process.children(recursive=True)
            if words in words_of(process)
        ]

    def pool_children(self) -> list[psutil.Process]:
        """The processes that draw: Celery's children."""
        return [
            child
            for worker in self.members("worker inference")
            for child in worker.children()
            if "billiard.spawn" in words_of(child)
        ]

    def post(self, path: str, **body) -> dict:
        response = self.http.post(path, json=body)
        assert response.is_success, response.text
        return response.json()

    def generate(self, prompt: str = "a cat", **fields) -> str:
        """The path of an accepted generation."""
        accepted = self.post("/v1/generations", **({"prompt": prompt, "model": "emoji"} | fields))
        return f"/v1/generations/{accepted['id']}"

    def erase_axes(self) -> str:
        """The path of an accepted erasure, a small one."""
        axe = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}
        accepted = self.post("/v1/erasures", base_model="emoji", concepts=[axe])
        return f"/v1/erasures/{accepted['id']}"

    def ended(self, path: str, *, within_s: float = 300.0) -> dict:
        """The job once it has ended."""
        seen: list[dict] = []

        def has_ended() -> bool:
            seen.append(self.http.get(path).raise_for_status().json())
            return seen[-1]["state"] in {"succeeded", "failed", "cancelled"}

        self.wait_until(has_ended, within_s)
        return seen[-1]

    def wait_until(self, condition, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if condition():
                    return
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """The end of every log, for a failed test's message."""
        files = [self.data_dir.parent / "up.log", *self.data_dir.glob("logs/*.log")]
        return "\n".join(f"== {file.name}\n{file.read_text()[-2000:]}" for file in files)
