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
RECENT_S = 60.0
"""A worker that goes on refusing a model says so with each job that asks for it."""


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

    def end(self, model_id: str, *, worker: str) -> None:
        """A worker serves it: it was the one that refused it, or nobody has of late.

        A host whose copy alone is spoilt goes on being told of while others serve theirs.
        """
        with answering():
            found: Any = self._redis.hget(KEY, model_id)
            refusal = None if found is None else _parsed(found)
            if refusal is None:
                return
            if refusal.worker == worker or refusal.at < self._now() - RECENT_S:
                self._redis.hdel(KEY, model_id)

    def all(self) -> dict[str, Refusal]:
        """The last one of each model; those of another version of this program are left out."""
        with answering():
            found: Any = self._redis.hgetall(KEY)
        refusals = {}
        for model_id, text in found.items():
            if refusal := _parsed(text):
                refusals[model_id] = refusal
        return refusals


def _parsed(text: str) -> Refusal | None:
    try:
        return Refusal.model_validate_json(text)
    except ValidationError:
        return None
