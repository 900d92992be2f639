"""What erasures and evaluations leave on their host, cleared away once they have ended.

An attempt clears up after itself; a job that ends in its queue has nobody who does.
"""

import shutil
from pathlib import Path

from core.errors import JobNotFound, JobUnreadable
from core.job_store import JobStore
from core.registry import ModelRegistry

JOB = "job-"
"""What the folders of models in the making start with, that are of jobs."""


class TrainerLeavings:
    def __init__(self, jobs: JobStore, registry: ModelRegistry, checkpoints: Path) -> None:
        """
        Args:
            checkpoints: a folder with one in it for each job that was begun.
        """
        self._jobs = jobs
        self._making = registry.making
        self._checkpoints = checkpoints

    def sweep(self) -> None:
        """Of jobs that will not be tried again, wherever and however they ended.

        Raises:
            StoreUnavailable: without the records nothing is known to have ended.
        """
        for folder in self._checkpoints.glob("*"):
            if self._has_ended(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
        self._making.sweep(
            lambda name: name.startswith(JOB) and self._has_ended(name.removeprefix(JOB))
        )

    def _has_ended(self, job_id: str) -> bool:
        try:
            return self._jobs.get(job_id).state.ended
        except JobNotFound:
            return True
        except JobUnreadable:
            return False  # a newer version's worker may be at it
