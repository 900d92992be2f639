"""Jobs of one kind, as clients may read and cancel them: each its own, an admin all."""

import re

from core.callers import Caller
from core.errors import Invalid, JobExpired, JobNotFound
from core.job_ids import JobIds
from core.job_specs import Kind
from core.job_store import JobStore
from core.jobs import Job, JobState
from core.policies import PolicyStore

JOB_ID = re.compile(r"[0-9a-f]{32}")


class Records:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, jobs: JobStore, ids: JobIds, policies: PolicyStore, kind: Kind) -> None:
        self._jobs = jobs
        self._ids = ids
        self._policies = policies
        self._kind = kind

    @property
    def noun(self) -> str:
        """As in addresses: `generations`."""
        return f"{self._kind}s"

    def get(self, job_id: str, caller: Caller) -> Job:
        """Raises JobNotFound, also for a job of another kind or tenant; JobExpired."""
        self._check(job_id)
        try:
            job = self._jobs.get(job_id)
        except JobNotFound:
            if self._ids.was_given(self._kind, job_id):
                raise JobExpired(f"{self._kind} {job_id} ended long ago, and is gone") from None
            raise
        if caller.sees not in {None, job.tenant}:
            raise JobNotFound(f"no job {job_id}; it never existed, or it ended long ago")
        if job.spec.kind != self._kind:
            raise JobNotFound(f"{job_id} is a job of another kind, no {self._kind}")
        return job

    def ahead(self, job: Job) -> int | None:
        """How many jobs wait before a queued one; None when it is not queued."""
        if job.state is not JobState.QUEUED:
            return None
        return self._jobs.counts.ahead(self._kind, job.id)

    def cancel(self, job_id: str, caller: Caller) -> Job:
        """Raises JobNotFound, JobEnded."""
        self.get(job_id, caller)
        return self._jobs.cancel(job_id)

    def retry(self, job_id: str, caller: Caller) -> Job:
        """Queue a failed job again; the sweepers wake a worker for it.

        Raises:
            JobNotFound, JobNotFailed, QueueFull, TenantQueueFull, PolicyUnreadable.
        """
        # An admin's retry counts among the jobs of the tenant whose job it is.
        tenant = self.get(job_id, caller).tenant
        limits = self._policies.of(tenant).policy.limits
        return self._jobs.retry(job_id, max_open=limits.open_jobs)

    def page(
        self, caller: Caller, *, limit: int, after: str | None, unfinished: bool = False
    ) -> tuple[list[Job], bool]:
        """Up to `limit` jobs, newest first, and whether there are more.

        Args:
            after: the id of the last job of the page before.
            unfinished: those that run and wait alone, in that order.

        Raises:
            JobNotFound: there is no job `after`.
            Invalid: `after` and `unfinished`: what is first in line changes while one reads.
        """
        if unfinished:
            if after is not None:
                raise Invalid("after: the list of what has not ended is one page; leave it out")
            jobs = self.unfinished(caller, limit=limit + 1)
            return jobs[:limit], len(jobs) > limit
        if after is not None:
            self._check(after)
        lists, tenant = self._jobs.lists, caller.sees
        jobs = lists.latest(self._kind, limit=limit + 1, before=after, tenant=tenant)
        return jobs[:limit], len(jobs) > limit

    def unfinished(self, caller: Caller, *, limit: int) -> list[Job]:
        """What runs, then what waits in its order: of all tenants for an admin."""
        return self._jobs.lists.unfinished(self._kind, limit=limit, tenant=caller.sees)

    def _check(self, job_id: str) -> None:
        if not JOB_ID.fullmatch(job_id):
            raise JobNotFound(f"no {self._kind} has this id; ids are 32 hexadecimal digits")
