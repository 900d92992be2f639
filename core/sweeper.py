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
            tidy: slow work to be done now and then, such as deleting expired pictures.
        """
        self._jobs = jobs
        self._wakes = wakes
        self._kinds = tuple(kinds)
        self._period_s = period_s
        self._tidy = tidy
        self._tidy_every_s = tidy_every_s
        self._tidy_at = time.monotonic()
        self._failing = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, within_s: float = 5.0) -> None:
        """Returns when the thread has ended, or after `within_s` seconds: it is a daemon."""
        self._stopped.set()
        self._thread.join(within_s)

    def sweep(self) -> None:
        """One round.

        Raises:
            StoreUnavailable.
        """
        self._jobs.leasing.reap()
        for kind in self._kinds:
            if self._jobs.counts.queued(kind) and not self._wakes.waiting(kind):
                self._wakes.send(kind)
        if self._tidy is not None and time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + self._tidy_every_s
            self._tidy()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            try:
                self.sweep()
            except Exception as error:  # noqa: BLE001
                # A sweeper that dies, of an outage or of a defect, would be missing ever after.
                if not self._failing:
                    log.warning("sweep failed", error=type(error).__name__)
                self._failing = True
            else:
                self._failing = False
