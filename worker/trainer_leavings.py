"""What erasures and evaluations leave on their host, cleared away once they have ended.

An attempt clears up after itself; a job that ends in its queue has nobody who does.
"""

import shutil
from pathlib import Path

import structlog

from core.errors import (
    JobNotFound,
    JobUnreadable,
    ModelChanged,
    ModelsUnavailable,
    UntrustedModel,
)
from core.job_store import JobStore
from core.jobs import Job, JobState
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.specs import ErasureSpec
from worker.made_models import MadeModels, model_id

log = structlog.get_logger()

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
        self._registrar = Registrar(registry)
        self._checkpoints = checkpoints
        self._made = MadeModels(checkpoints)

    def sweep(self) -> None:
        """Of jobs that will not be tried again, wherever and however they ended.

        Raises:
            StoreUnavailable: without the records nothing is known to have ended.
        """
        for folder in self._checkpoints.glob("*"):
            self._clear(folder)
        self._making.sweep(
            lambda name: name.startswith(JOB) and self._has_ended(name.removeprefix(JOB))
        )

    def _clear(self, folder: Path) -> None:
        """The folder of a job, and a model that it made and nobody is to have."""
        try:
            job = self._jobs.get(folder.name)
        except JobNotFound:
            # How it ended is not known any more: a model of it stays.
            shutil.rmtree(folder, ignore_errors=True)
            return
        except JobUnreadable:
            return
        if not job.state.ended:
            return
        done_with = job.state is JobState.SUCCEEDED
        if _is_given_up(job):
            done_with = self._discard(job)
            if not self._is_given_up_still(job.id):
                return  # it is tried again, and goes on from what it has
        if done_with:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            # A failed job that is tried again finds its model, and may be cancelled then.
            self._made.clear_all_but_notes(job.id)

    def _discard(self, job: Job) -> bool:
        """Whether no candidate is left of a job that was given up."""
        if not isinstance(job.spec, ErasureSpec):
            return True
        name = model_id(job.spec, job.id)
        try:
            for digest in self._made.of(job.id):
                if self._registrar.discard(
                    name, digest, is_unwanted=lambda: self._is_given_up_still(job.id)
                ):
                    log.info("discarded", model=name, job=job.id)
        except (ModelChanged, ModelsUnavailable, UntrustedModel, OSError) as error:
            log.warning("cannot discard", model=name, job=job.id, reason=str(error))
            return False
        return True

    def _is_given_up_still(self, job_id: str) -> bool:
        try:
            return _is_given_up(self._jobs.get(job_id))
        except (JobNotFound, JobUnreadable):
            return False

    def _has_ended(self, job_id: str) -> bool:
        try:
            return self._jobs.get(job_id).state.ended
        except JobNotFound:
            return True
        except JobUnreadable:
            return False  # a newer version's worker may be at it


def _is_given_up(job: Job) -> bool:
    """Cancelled, or late: nobody waits for its model. Another that failed may be tried again."""
    return job.state is JobState.CANCELLED or job.late
