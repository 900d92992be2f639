"""Repairs what a crash leaves behind, once a second, in every process that has a sweeper.

A job whose worker died goes back to its queue; a queue with jobs but no wake gets one. Both are
harmless to do twice, so no two sweepers need to agree on anything.
"""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from core.job_specs import Kind
from core.job_store import JobStore
from core.queue import Wakes

TIDY_EVERY_S = 600.0

log = structlog.get_logger(__name__)


class Sweeper:
    def __init__(
        self,
        jobs: JobStore,
        wakes: Wakes,
        kinds: Sequence[Kind],
        period_s: float = 1.0,
        *,
        tidy: Callable[[], None] | None = None,
        tidy_every_s: float = TIDY_EVERY_S,
    ) -> None:
        """
        Args:
            kinds: the kinds of job to send missing wakes for.
            tidy: slow work to be done now and then, such as deleting expired pictures; it holds up
                no sweep.
        """
        self._jobs = jobs
        self._wakes = wakes
        self._kinds = tuple(kinds)
        self._period_s = period_s
        self._stopped = threading.Event()
        self._threads = [self._repeating("sweeper", self.sweep, period_s)]
        if tidy is not None:
            self._threads.append(self._repeating("tidying", tidy, tidy_every_s))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, within_s: float = 5.0) -> None:
        """Returns when the threads have ended, or after `within_s` seconds: they are daemons."""
        self._stopped.set()
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def sweep(self) -> None:
        """One round.

        Raises:
            StoreUnavailable.
        """
        self._jobs.leasing.reap()
        for kind in self._kinds:
            if self._jobs.counts.queued(kind) and not self._wakes.waiting(kind):
                self._wakes.send(kind)

    def _repeating(self, name: str, work: Callable[[], None], every_s: float) -> threading.Thread:
        return threading.Thread(
            target=self._repeat, args=(name, work, every_s), name=name, daemon=True
        )

    def _repeat(self, name: str, work: Callable[[], None], every_s: float) -> None:
        pause_s, failing = self._period_s, False
        while not self._stopped.wait(pause_s):
            pause_s = every_s
            try:
                work()
            except Exception as error:  # noqa: BLE001
                # A sweeper that dies, of an outage or of a defect, would be missing ever after.
                if not failing:
                    log.warning("sweep failed", of=name, error=type(error).__name__)
                failing = True
            else:
                failing = False
