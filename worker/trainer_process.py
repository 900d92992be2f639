"""A trainer as a process of its own, watched: its progress passed on, its life tied to its job's.

It may be killed at any moment without taking the worker along, and it gives back every byte of
memory when it ends.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core.children import start_child, stop_child
from core.errors import AppError, JobCancelled, LeaseLost, StoreUnavailable
from core.jobs import Lease
from core.leasing import Leasing
from core.progress import Progress
from core.samples import Samples
from worker import metrics
from worker.heartbeat import Heartbeat
from worker.marks import SHUTTING_DOWN

LOOK_EVERY_S = 0.25
GRACE_S = 8.0
"""For the trainer to end; less than the worker itself is given (cli/stack/up.py)."""
USER_ERROR = 2
"""The trainer's exit code for a job that cannot succeed as it stands."""


class TrainerFailed(AppError):
    """The job's own fault; trying again would end the same way."""


class TrainerCrashed(AppError):
    """Not the job's fault, as far as one can tell."""


class ShuttingDown(AppError):
    """The worker is told to stop."""


class TrainerProcesses:
    """Runs trainers, one at a time."""

    def __init__(
        self,
        leasing: Leasing,
        heartbeat: Heartbeat,
        *,
        silence_s: float,
        draining: Callable[[], bool],
    ) -> None:
        """
        Args:
            silence_s: a trainer that reports nothing for this long is taken to hang.
        """
        self._leasing = leasing
        self._heartbeat = heartbeat
        self._silence_s = silence_s
        self._draining = draining

    def run(self, module: str, words: Sequence[str | Path], lease: Lease) -> None:
        """`python -m module words`, to its end; it is ended when the job is not to go on.

        Raises:
            TrainerFailed, TrainerCrashed, JobCancelled, LeaseLost, ShuttingDown.
        """
        trainer = start_child(
            [sys.executable, "-m", module, *words, "--progress", "json"],
            stdout=subprocess.PIPE,
            # In native code it would not hear a SIGTERM, and go on beside the next attempt.
            death_signal=signal.SIGKILL,
        )
        self._watch(trainer, lease)

    def check(self, lease: Lease) -> None:
        """Whether the work on a lease may go on, by its heartbeat's last beat.

        Raises:
            TrainerFailed: it is late. JobCancelled, LeaseLost.
        """
        match self._heartbeat.verdict(lease):
            case "cancelled":
                raise JobCancelled(f"job {lease.job_id} was cancelled")
            case "late":
                raise TrainerFailed("its deadline passed while it ran")
            case "lost":
                raise LeaseLost(f"job {lease.job_id} has another worker now")

    def _watch(self, trainer: "subprocess.Popen[bytes]", lease: Lease) -> None:
        assert trainer.stdout is not None
        last_words = ""
        shown: list[Samples] = []
        heard_at = time.monotonic()
        try:
            for line in _lines(trainer.stdout.fileno()):
                self._heartbeat.step()
                heard_at = time.monotonic() if line else heard_at
                if time.monotonic() - heard_at > self._silence_s:
                    raise TrainerCrashed(f"the trainer said nothing for {self._silence_s:.0f} s")
                self.check(lease)
                if self._draining():
                    raise ShuttingDown(SHUTTING_DOWN)
                # An outage of the broker is no reason to stop: the lease decides.
                with contextlib.suppress(StoreUnavailable):
                    self._pass_on(line, lease, shown)
                last_words = line or last_words
        finally:
            code = stop_child(trainer, grace_s=GRACE_S)
            trainer.stdout.close()
        if code == USER_ERROR and last_words.startswith('{"error"'):
            raise TrainerFailed(json.loads(last_words)["error"]["detail"])
        if code != 0:
            name = signal.Signals(-code).name if code < 0 else str(code)
            raise TrainerCrashed(f"the trainer ended with {name}")

    def _pass_on(self, line: str, lease: Lease, shown: list[Samples]) -> None:
        """What a trainer says of its progress; `shown` keeps its first round of samples.

        Raises:
            StoreUnavailable.
        """
        if line.startswith('{"stage"'):
            progress = Progress.model_validate_json(line)
            metrics.erasing(progress.stage, progress.done / max(1, progress.total))
            self._leasing.report(lease, progress)
        elif line.startswith('{"after"'):
            shown[1:] = [Samples.model_validate_json(line)]
            self._leasing.show(lease, shown)


def _lines(file: int) -> Iterator[str]:
    """Lines as they come, and an empty one whenever nothing came for a while; ends at EOF."""
    unread = b""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK_EVERY_S):
                yield ""
                continue
            data = os.read(file, 1 << 16)
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            yield from (line.decode() for line in lines if line)
