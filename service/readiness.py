"""Whether a request sent now would be answered with a picture, and what is missing if not."""

import time

import redis

from core.checkup.broker import check_broker
from core.errors import AppError, StoreUnavailable
from core.job_store import JobStore
from core.refusals import Refusals
from core.registry import DEFAULT, ModelRegistry
from core.workers import WorkerRoll

LOOK_AGAIN_S = 10.0
"""How often Redis is asked how it keeps what it is told."""


class Readiness:
    def __init__(
        self,
        client: redis.Redis,
        jobs: JobStore,
        roll: WorkerRoll,
        registry: ModelRegistry,
        *,
        within_s: float,
    ) -> None:
        """
        Args:
            within_s: a worker that has not beaten for so long counts as gone.
        """
        self._redis = client
        self._refusals = Refusals(client)
        self._broker: list[str] = []
        self._broker_at: float | None = None
        self._jobs = jobs
        self._roll = roll
        self._registry = registry
        self._within_s = within_s

    def missing(self) -> list[str]:
        """In words, what a picture could not be drawn without; empty when ready."""
        missing: list[str] = []
        served: list[str] | None = None
        try:
            served = [one.id for one in self._registry.all() if self._registry.serving.allows(one)]
            self._jobs.ping()
            missing += self._broker_problems()
            workers = self._roll.present("inference", self._within_s)
            if not workers:
                missing.append(f"no inference worker has beaten within {self._within_s:g} s")
            if self._refusals.by_each(workers, served):
                missing.append(
                    "every worker refuses every model that is served; see GET /v1/models"
                )
        except StoreUnavailable:
            missing.append("Redis does not answer")
        # None: not known, as Redis has never answered.
        if served == []:
            missing.append("no model is served; import or promote one")
        return missing

    def warnings(self) -> list[str]:
        """In words, which requests would be refused while others are served.

        No reason to send clients elsewhere: whoever names a model gets pictures.
        """
        try:
            self._registry.served(self._registry.resolve(DEFAULT))
        except StoreUnavailable:
            return []  # nothing speaks against that model, and `missing` tells of Redis
        except AppError as error:
            return [
                "requests that name no model are refused, since `default` means one that is not "
                f"served (`trce models default MODEL` points it elsewhere): {error.detail}"
            ]
        return []

    def _broker_problems(self) -> list[str]:
        """Accepting jobs that a restart of Redis would lose is no readiness."""
        now = time.monotonic()
        if self._broker_at is None or now - self._broker_at > LOOK_AGAIN_S:
            self._broker = [
                f"{one.name}: {one.found}; {one.fix}"
                for one in check_broker(self._redis)
                if one.state == "problem"
            ]
            self._broker_at = now
        return self._broker
