"""Keeps child processes running, and stops them all in order."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from core.children import kill_session, start_child, stop_child

log = structlog.get_logger()

MAX_PAUSE_S = 5.0
STEADY_S = 10.0
"""A process that ran this long starts without a pause when it dies."""
TELLING_DEATHS = 3
"""In a row and quick: from then on it is told what the log says last."""
LAST_BYTES = 4096
MAX_LOG_BYTES = 32 << 20
"""Of each log; as much again is kept of what came before, in a file beside it."""


@dataclass
class Member:
    """One child: how it is started, and how it has fared."""

    name: str
    command: list[str]
    env: dict[str, str]
    log_file: Path
    grace_s: float = 10.0
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    pause_s: float = 0.0
    starts: int = 0
    quick_deaths: int = 0
    """In a row."""

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as file:
            # If we are killed, so are they: a graceful end would wait for a broker that is gone.
            self.process = start_child(
                self.command,
                env=os.environ | self.env,
                stdout=file,
                stderr=file,
                death_signal=signal.SIGKILL,
            )
        self.started_at = time.monotonic()
        self.starts += 1
        log.info("started", process=self.name, pid=self.process.pid)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def cut_log(self) -> None:
        """Begin the log afresh when it is long: the child keeps writing to the same file."""
        try:
            if self.log_file.stat().st_size <= MAX_LOG_BYTES:
                return
        except FileNotFoundError:
            return
        before = self.log_file.with_suffix(".log.1")
        try:
            shutil.copyfile(self.log_file, before)
        except OSError:
            # The disk is full: then room is worth more than old lines.
            before.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.truncate(self.log_file, 0)

    def last_words(self) -> str:
        """The last line of its log; empty where there is none."""
        with self.log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@dataclass
class Supervisor:
    """Start members in order, `tend` them until told to stop, stop them in reverse.

    Everything happens in the thread that calls, since children are tied to that thread's life.
    """

    members: list[Member] = field(default_factory=list)
    stopping: bool = False

    def start(self, member: Member) -> None:
        self.members.append(member)
        member.start()

    def tend(self) -> None:
        """Restart whatever has died; at once the first time, then with growing pauses."""
        for member in self.members:
            member.cut_log()
            if member.running:
                continue
            lived_s = time.monotonic() - member.started_at
            if lived_s > STEADY_S:
                member.pause_s = 0.0
                member.quick_deaths = 0
            if lived_s < member.pause_s:
                continue
            assert member.process is not None
            member.quick_deaths += 1
            why = {"code": member.process.returncode, "log": str(member.log_file)}
            if member.quick_deaths >= TELLING_DEATHS:
                why["said"] = member.last_words()
            log.warning("died", process=member.name, **why)
            # A worker's own children may have outlived it.
            kill_session(member.process)
            member.pause_s = min(MAX_PAUSE_S, max(0.2, 2 * member.pause_s))
            member.start()

    def stop(self) -> None:
        """In reverse order, each given its grace; those of one kind at the same time."""
        for member in reversed(self.members):
            if member.running and member.name.startswith(("inference", "trainer")):
                assert member.process is not None
                member.process.terminate()
        for member in reversed(self.members):
            if member.process is not None:
                stop_child(member.process, grace_s=member.grace_s)
                kill_session(member.process)
                log.info("stopped", process=member.name)

    def ask_to_stop(self) -> None:
        self.stopping = True

    def run(self, *, every_s: float = 0.2) -> None:
        """Tend the members until `ask_to_stop`."""
        while not self.stopping:
            self.tend()
            time.sleep(every_s)


@contextlib.contextmanager
def on_stop_signals(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` on SIGINT and SIGTERM, however often they come."""

    def handle(*_: object) -> None:
        action()

    before = {name: signal.signal(name, handle) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
