"""Deletes, beside the work, what a crash or a cancelled job left on a worker's host.

Old leavings a service deletes, too (service/tidying.py): a host may have workers alone.
"""

import time
from collections.abc import Callable

from core.leavings import Leavings
from worker.trainer_leavings import TrainerLeavings


class Tidying:
    """A sweeper calls it now and then; it may be interrupted at any time."""

    def __init__(
        self, leavings: Leavings, open_of_jobs: Callable[[], TrainerLeavings] | None = None
    ) -> None:
        """
        Args:
            open_of_jobs: makes what clears up after the jobs of a trainer. It is called until it
                succeeds: keys may come later than the worker.
        """
        self._leavings = leavings
        self._open_of_jobs = open_of_jobs
        self._of_jobs: TrainerLeavings | None = None

    def __call__(self) -> None:
        """Raises StoreUnavailable, and what `open_of_jobs` raises."""
        self._leavings.sweep(now=time.time())
        if self._of_jobs is None and self._open_of_jobs is not None:
            self._of_jobs = self._open_of_jobs()
        if self._of_jobs is not None:
            self._of_jobs.sweep()
