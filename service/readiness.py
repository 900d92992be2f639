"""Whether a request sent now would be answered with a picture, and what is missing if not."""

from core.errors import StoreUnavailable
from core.job_store import JobStore
from core.registry import ModelRegistry
from core.workers import WorkerRoll


class Readiness:
    def __init__(
        self, jobs: JobStore, roll: WorkerRoll, registry: ModelRegistry, *, within_s: float
    ) -> None:
        """
        Args:
            within_s: a worker that has not beaten for so long counts as gone.
        """
        self._jobs = jobs
        self._roll = roll
        self._registry = registry
        self._within_s = within_s

    def missing(self) -> list[str]:
        """In words, what a picture could not be drawn without; empty when ready."""
        missing = []
        try:
            self._jobs.ping()
            if not self._roll.present("inference", self._within_s):
                missing.append(f"no inference worker has beaten within {self._within_s:g} s")
        except StoreUnavailable:
            missing.append("Redis does not answer")
        if not any(map(self._registry.is_served, self._registry.all())):
            missing.append("no model is served; import or promote one")
        return missing
