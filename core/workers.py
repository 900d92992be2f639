"""Which workers are alive: Redis remembers when each of them beat last.

    workers    sorted set: worker name -> unix seconds of its last beat

A name says what the worker does and where: `inference-0@host`, `trainer-1@host`.
"""

import time
from collections.abc import Callable
from typing import Any

import redis

from core.redis_connection import answering

KEY = "workers"
FORGET_AFTER_S = 24 * 3600.0


class WorkerRoll:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._now = now

    def beat(self, name: str) -> None:
        """Note that worker `name` is alive."""
        at = self._now()
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zadd(KEY, {name: at})
            pipe.zremrangebyscore(KEY, "-inf", at - FORGET_AFTER_S)
            pipe.execute()

    def last_beat(self, name: str) -> float | None:
        """When worker `name` beat last, unix seconds; None: it did not lately."""
        with answering():
            at: Any = self._redis.zscore(KEY, name)
        return None if at is None else float(at)

    def present(self, role: str, within_s: float) -> list[str]:
        """The names of the workers of `role` that beat in the last `within_s` seconds."""
        with answering():
            names: Any = self._redis.zrangebyscore(KEY, self._now() - within_s, "+inf")
        return sorted(name for name in names if name.startswith(f"{role}-"))
