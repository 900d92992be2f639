"""Jobs in their orders: the latest, those that have not ended, those that were given up.

A record expires, its place in a list does not: whoever reads a list takes out what is gone.
"""

from collections.abc import Sequence
from typing import Any, get_args

import redis

from core.errors import JobNotFound
from core.job_records import read_jobs
from core.job_specs import Kind
from core.jobs import Job
from core.redis_connection import answering

OLDEST = 500
"""So many of a list are looked at together."""


class JobLists:
    """All verbs raise StoreUnavailable while Redis does not answer.

    They leave out what a newer version has written and this one cannot read.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def latest(
        self,
        kind: Kind,
        *,
        limit: int = 20,
        before: str | None = None,
        tenant: str | None = None,
    ) -> list[Job]:
        """Jobs of a kind, newest first.

        Args:
            before: the id of the last one seen.
            tenant: whose jobs; None for those of all.
        """
        index = f"jobs:{kind}" if tenant is None else f"jobs:{kind}:{tenant}"
        found: list[Job] = []
        with answering():
            rank: Any = self._redis.zrevrank(index, before) if before else None
            if before and rank is None:
                raise JobNotFound(f"no {kind} job {before} to continue after")
            start = 0 if rank is None else rank + 1
            while len(found) < limit:
                ids: Any = self._redis.zrevrange(index, start, start + limit - 1)
                if not ids:
                    break
                jobs = read_jobs(self._redis, ids)
                missing = [i for i, job in zip(ids, jobs, strict=True) if job is None]
                expired = self._gone(missing)
                if expired:
                    self._redis.zrem(index, *expired)
                found += [job for job in jobs if job is not None]
                start += len(ids) - len(expired)
        return found[:limit]

    def forget_expired(self) -> None:
        """Take expired jobs out of all lists, the oldest first.

        Submitting takes out two for each that comes; of who submits no more, all would stay.
        """
        with answering():
            for kind in get_args(Kind):
                tenants: Any = self._redis.hkeys(f"tags:{kind}")
                for name in (f"jobs:{kind}", *(f"jobs:{kind}:{one}" for one in tenants)):
                    while self._forget_oldest(name):
                        pass

    def _forget_oldest(self, name: str) -> bool:
        """Whether all that were looked at had expired, so that the next may have, too."""
        ids: Any = self._redis.zrange(name, 0, OLDEST - 1)
        gone = self._gone(ids)
        if gone:
            self._redis.zrem(name, *gone)
        return bool(ids) and len(gone) == len(ids)

    def _gone(self, job_ids: Sequence[str]) -> list[str]:
        """Those that have no record any more."""
        pipe = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.exists(f"job:{job_id}")
        there = pipe.execute()
        return [job_id for job_id, exists in zip(job_ids, there, strict=True) if not exists]

    def unfinished(self, kind: Kind, *, limit: int, tenant: str | None = None) -> list[Job]:
        """Those that run, then those that wait, in the order of their places; up to `limit`.

        Args:
            tenant: whose jobs; None for those of all.
        """
        index = f"jobs:{kind}" if tenant is None else f"jobs:{kind}:{tenant}"
        with answering():
            classes: Any = self._redis.smembers(f"classes:{kind}")
            pipe = self._redis.pipeline(transaction=False)
            pipe.zinter(["leases", index])
            for queue_class in classes:
                queue = f"queue:{kind}:{queue_class}"
                if tenant is None:
                    pipe.zrange(queue, 0, limit - 1, withscores=True)
                else:
                    # The place in the queue alone counts, not when a job was made.
                    pipe.zinter({queue: 1, index: 0}, withscores=True)
            leased, *queues = pipe.execute()
            waiting = sorted((place, job_id) for queue in queues for job_id, place in queue)
            ids = [*leased, *(job_id for _, job_id in waiting[:limit])]
            jobs = [job for job in read_jobs(self._redis, ids) if job is not None]
        open_ones = [job for job in jobs if not job.state.ended]
        # A job that was claimed in between is among both.
        once = {job.id: job for job in open_ones}
        return list(once.values())[:limit]

    def dead(self) -> list[Job]:
        """Those that used up their attempts, the latest first; of all kinds and tenants."""
        with answering():
            ids: Any = self._redis.lrange("dead", 0, -1)
            jobs = read_jobs(self._redis, ids)
            missing = [job_id for job_id, job in zip(ids, jobs, strict=True) if job is None]
            for job_id in self._gone(missing):
                self._redis.lrem("dead", 0, job_id)
        return [job for job in jobs if job is not None]
