"""Jobs that have ended and whose client is to be told: what is due, and how it went.

A job gets into the outbox in the same script that ends it (core/lua/prelude.lua), so no end goes
untold. It leaves when it was told, or after the last try.

    webhooks               sorted set, ids of jobs by the time in ms of their next try
    webhook_taken:<id>     somebody is trying now
    webhook_rests:<digest> a tenant's receiver that did not take one is left alone for a while
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis

from core.job_scripts import JobScripts, ms
from core.jobs import Job
from core.redis_connection import answering

OUTBOX = "webhooks"
PAUSES_S = (5, 60, 300, 1800, 7200, 18_000, 36_000)
"""Between tries, so there are eight over 18 hours."""
TAKEN_MS = 30_000
"""Longer than a try lasts; one whose process died is taken up again after it."""
REST_S = 30
LOOKS_AT = 50
ANOTHER_END = -1
"""core/lua/webhook.lua"""


class Outbox:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._scripts = JobScripts(client)

    def due(self) -> list[str]:
        """Some ids of jobs, those that wait longest first."""
        with answering():
            ids: Any = self._redis.zrangebyscore(OUTBOX, "-inf", _now_ms(), start=0, num=LOOKS_AT)
        return list(ids)

    @contextmanager
    def taken(self, job_id: str) -> Iterator[bool]:
        """Whether it is ours to try now; no other process tries meanwhile."""
        key = f"webhook_taken:{job_id}"
        with answering():
            ours = bool(self._redis.set(key, 1, nx=True, px=TAKEN_MS))
            # Another may have tried between our look and our grip.
            due_ms: Any = self._redis.zscore(OUTBOX, job_id) if ours else None
        try:
            yield due_ms is not None and due_ms <= _now_ms()
        finally:
            if ours:
                with answering():
                    self._redis.delete(key)

    def rests(self, tenant: str, url: str) -> bool:
        """Whether its receiver did not take one a moment ago."""
        with answering():
            return bool(self._redis.exists(_rest(tenant, url)))

    def postpone(self, job_id: str, *, for_s: float = REST_S) -> None:
        """Uncounted."""
        with answering():
            self._redis.zadd(OUTBOX, {job_id: _now_ms() + ms(for_s)}, xx=True)

    def told(self, job: Job) -> None:
        """The end that `job` shows was taken; one that has come since is still to be told."""
        self._note(job, delivered=1)

    def not_told(self, job: Job, why: str) -> bool:
        """Whether there will be another try."""
        assert job.webhook is not None
        tries = self._note(job, problem=why)
        with answering():
            self._redis.set(_rest(job.tenant, job.webhook), 1, ex=REST_S)
        if tries < 0:
            return tries == ANOTHER_END
        if tries > len(PAUSES_S):
            self.forget(job.id)
            return False
        self.postpone(job.id, for_s=PAUSES_S[tries - 1])
        return True

    def forget(self, job_id: str) -> None:
        with answering():
            self._redis.zrem(OUTBOX, job_id)

    def _note(self, job: Job, *, delivered: int = 0, problem: str = "") -> int:
        """In the job's record: how many tries there were of this end, or what the script says."""
        ended_ms = ms(job.finished_at or 0)
        return int(self._scripts.run("webhook", job.id, ended_ms, delivered, problem))


def _rest(tenant: str, url: str) -> str:
    receiver = f"{tenant} {urlsplit(url).netloc}"
    return f"webhook_rests:{hashlib.sha256(receiver.encode()).hexdigest()[:32]}"


def _now_ms() -> int:
    return round(time.time() * 1000)
