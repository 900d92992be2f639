"""Models that a worker refused to load, and why: it sees their files, the service tells of it.

models_refused       hash: model id -> a Refusal as JSON, the last one of any worker
models_refused_by    sorted set: "worker model id" -> when that worker refused it last
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from core.redis_connection import answering

KEY = "models_refused"
BY_KEY = "models_refused_by"
RECENT_S = 60.0
"""A worker that goes on refusing a model says so with each job that asks for it."""
TRY_AGAIN_S = 300.0
"""A refusal by every worker is believed for this long: then what was mended is to be asked for."""


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
            pipe = self._redis.pipeline()
            pipe.hset(KEY, model_id, refusal.model_dump_json())
            pipe.zadd(BY_KEY, {f"{worker} {model_id}": refusal.at})
            pipe.zremrangebyscore(BY_KEY, "-inf", refusal.at - TRY_AGAIN_S)
            pipe.execute()

    def end(self, model_id: str, *, worker: str) -> None:
        """A worker serves it: it was the one that refused it, or nobody has of late.

        A host whose copy alone is spoilt goes on being told of while others serve theirs.
        """
        with answering():
            self._redis.zrem(BY_KEY, f"{worker} {model_id}")
            found: Any = self._redis.hget(KEY, model_id)
            refusal = None if found is None else _parsed(found)
            if refusal is None:
                return
            if refusal.worker == worker or refusal.at < self._now() - RECENT_S:
                self._redis.hdel(KEY, model_id)

    def by_each(self, workers: Sequence[str], model_ids: Sequence[str]) -> bool:
        """Whether all of the workers have refused all of the models of late."""
        pairs = [f"{worker} {model_id}" for worker in workers for model_id in model_ids]
        if not pairs:
            return False
        with answering():
            scores: Any = self._redis.zmscore(BY_KEY, pairs)
        since = self._now() - TRY_AGAIN_S
        return all(score is not None and float(score) > since for score in scores)

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
