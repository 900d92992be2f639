"""Models that a worker refused to load, and why: it sees their files, the service tells of it.

models_refused    hash: model id -> a Refusal as JSON
"""

import time
from collections.abc import Callable
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from core.redis_connection import answering

KEY = "models_refused"


class Refusal(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    worker: str
    at: float
    """Unix time in seconds."""


class Refusals:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._now = now

    def note(self, model_id: str, reason: str, *, worker: str) -> None:
        refusal = Refusal(reason=reason, worker=worker, at=self._now())
        with answering():
            self._redis.hset(KEY, model_id, refusal.model_dump_json())

    def clear(self, model_id: str) -> None:
        """It was loaded."""
        with answering():
            self._redis.hdel(KEY, model_id)

    def all(self) -> dict[str, Refusal]:
        """The last one of each model; those of another version of this program are left out."""
        with answering():
            found: Any = self._redis.hgetall(KEY)
        refusals = {}
        for model_id, text in found.items():
            try:
                refusals[model_id] = Refusal.model_validate_json(text)
            except ValidationError:
                continue
        return refusals
