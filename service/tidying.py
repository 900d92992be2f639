"""Deletes what nobody can ask for any more.

Pictures whose job record has expired, its places in lists, what was cached long ago, and models
that a crash left half way.
"""

import time

from core.errors import JobNotFound, JobUnreadable
from core.job_store import JobStore
from core.leavings import Leavings
from core.storage import PictureStore
from service.records import JOB_ID


class Tidying:
    """A sweeper calls it now and then; it may be interrupted at any time."""

    def __init__(
        self, jobs: JobStore, storage: PictureStore, leavings: Leavings, *, keep_s: float
    ) -> None:
        self._jobs = jobs
        self._leavings = leavings
        self._storage = storage
        self._keep_s = keep_s

    def __call__(self) -> None:
        """Raises StoreUnavailable: without the records nothing is known to have expired."""
        self._leavings.sweep(now=time.time())
        self._jobs.lists.forget_expired()
        for name in self._storage.older_than(self._keep_s, now=time.time()):
            if JOB_ID.fullmatch(name) and self._has_expired(name):
                self._storage.delete_below(f"generations/{name}")

    def _has_expired(self, job_id: str) -> bool:
        try:
            self._jobs.get(job_id)
        except JobNotFound:
            return True
        except JobUnreadable:
            return False  # its record is there
        return False
