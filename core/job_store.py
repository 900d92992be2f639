"""The record of every job, in Redis. Each transition is one Lua script, so it is atomic.

Nothing else may write these keys. A Celery message only says that there may be something to
claim here; losing or repeating one changes nothing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from core.callers import LOCAL
from core.errors import (
    JobEnded,
    JobNotFailed,
    JobNotFound,
    KeyReused,
    QueueFull,
    QuotaSpent,
    StoreUnavailable,
    TenantQueueFull,
)
from core.job_counts import JobCounts
from core.job_lists import JobLists
from core.job_news import JobNews
from core.job_records import read_job
from core.job_scripts import JobScripts, ms
from core.job_specs import JobSpec, Kind
from core.jobs import Job, JobState
from core.leasing import Leasing
from core.redis_connection import answering

IDEMPOTENCY_KEY_LIFE_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Terms:
    """On what terms a kind of job is accepted."""

    max_queued: int
    max_open_per_tenant: int
    max_attempts: int
    keep_s: float


@dataclass(frozen=True)
class Submission:
    job_id: str
    replayed: bool
    """The idempotency key was seen before; `job_id` is the job it made then."""


class JobStore:
    """What clients ask of one job. `lists`, `counts` and `news` tell more, workers use `leasing`.

    All verbs raise StoreUnavailable while Redis does not answer.
    """

    def __init__(self, client: redis.Redis, terms: dict[Kind, Terms]) -> None:
        self._redis = client
        self._terms = terms
        self._scripts = JobScripts(client)
        self.leasing = Leasing(self._scripts, {kind: one.keep_s for kind, one in terms.items()})
        self.lists = JobLists(client)
        self.counts = JobCounts(client)
        self.news = JobNews(client)

    def submit(
        self,
        job_id: str,
        spec: JobSpec,
        *,
        queue_class: str,
        tenant: str = LOCAL,
        request_id: str = "",
        priority: int = 1,
        cost: int = 1,
        share: float = 1.0,
        max_open: int | None = None,
        quota: int | None = None,
        alone: bool = False,
        deadline_s: float | None = None,
        webhook: str | None = None,
        idempotency_key: str = "",
        payload_digest: str = "",
    ) -> Submission:
        """Accept a job, once per `job_id` and once per idempotency key.

        Args:
            queue_class: jobs of one class can share a batch; the model's id, as a rule.
            request_id: of the request that made it: workers name it in their logs.
            priority: 0 goes before 1 goes before 2.
            cost: what fairness counts; pictures, for a generation.
            share: of the workers' time, relative to other tenants'.
            max_open: how many jobs the tenant may have that have not ended.
            quota: how many units of cost the tenant may spend a day (UTC); None: any number.
            alone: must not share a batch.
            webhook: where its end is to be told.
            deadline_s: it is given up if it has not ended by then; None: never.
            payload_digest: of the request, to tell a retry from a reused key.

        Raises:
            QueueFull, TenantQueueFull, QuotaSpent, KeyReused; StoreUnavailable, too, while
            nine tenths of its memory are used.
        """
        terms = self._terms[spec.kind]
        today = datetime.now(UTC)
        verdict, value = self._scripts.run(
            "submit",
            job_id,
            spec.kind,
            queue_class,
            spec.model_dump_json(),
            tenant,
            cost,
            priority,
            int(alone),
            terms.max_attempts,
            terms.max_queued,
            terms.max_open_per_tenant if max_open is None else max_open,
            idempotency_key,
            payload_digest,
            IDEMPOTENCY_KEY_LIFE_MS,
            request_id,
            share,
            f"quota:{tenant}:{today:%Y-%m-%d}",
            "" if quota is None else quota,
            "" if deadline_s is None else ms(deadline_s),
            webhook or "",
            ms(terms.keep_s),
        )
        match verdict:
            case "accepted":
                return Submission(value, replayed=False)
            case "replayed":
                return Submission(value, replayed=True)
            case "mismatch":
                raise _key_reused(value)
            case "quota":
                raise QuotaSpent(
                    f"your policy allows {quota} pictures a day, {value} are made or waiting "
                    f"already and {cost} more were asked for; the day ends at midnight UTC",
                    retry_after_s=24 * 3600 - today.hour * 3600 - today.minute * 60,
                )
            case "memory":
                raise _memory_full()
            case "full":
                raise _queue_full(value, spec.kind)
            case _:
                raise _tenant_full(value)

    def made_by(
        self, kind: Kind, idempotency_key: str, payload_digest: str, *, tenant: str = LOCAL
    ) -> str | None:
        """The id of the job that a key made before, if it did.

        What was accepted once stays accepted, even where the same request would be refused now.

        Raises:
            KeyReused.
        """
        with answering():
            made: Any = self._redis.hmget(
                f"idem:{kind}:{tenant}:{idempotency_key}", ["id", "digest"]
            )
            job_id, digest = made
            if job_id is None or not self._redis.exists(f"job:{job_id}"):
                return None
        if digest != payload_digest:
            raise _key_reused(job_id)
        return str(job_id)

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound, also when the record has expired, and JobUnreadable."""
        with answering():
            job = read_job(self._redis, job_id)
        if job is None:
            raise JobNotFound(f"no job {job_id}; it never existed, or it ended long ago")
        return job

    def cancel(self, job_id: str) -> Job:
        """End a queued job now; ask the worker of a running one to stop at its next step.

        Of one that is cancelled already it is a repetition: the first answer may have been lost.

        Raises:
            JobNotFound.
            JobEnded: in another way.
        """
        terms = self._terms[self.get(job_id).spec.kind]
        state = self._scripts.run("cancel", job_id, ms(terms.keep_s))
        if state is None:
            raise JobNotFound(f"no job {job_id}; it ended long ago")
        if JobState(state).ended and state != JobState.CANCELLED:
            raise JobEnded(f"job {job_id} has already {state}")
        return self.get(job_id)

    def retry(self, job_id: str, *, max_open: int | None = None) -> Job:
        """Queue a failed job again: it keeps its id, and gets as many attempts as it had.

        Of one that was tried again and has not failed since it is a repetition: the first answer
        may have been lost.

        Args:
            max_open: as in `submit`.

        Raises:
            JobNotFound, JobNotFailed, QueueFull, TenantQueueFull; StoreUnavailable as `submit`.
        """
        kind = self.get(job_id).spec.kind
        terms = self._terms[kind]
        answer = self._scripts.run(
            "retry",
            job_id,
            terms.max_queued,
            terms.max_open_per_tenant if max_open is None else max_open,
            terms.max_attempts,
        )
        if answer is None:
            raise JobNotFound(f"no job {job_id}; it ended long ago")
        match answer:
            case ["again", _]:
                return self.get(job_id)
            case ["full", queued]:
                raise _queue_full(queued, kind)
            case ["tenant_full", unfinished]:
                raise _tenant_full(unfinished)
            case ["memory", _]:
                raise _memory_full()
            case [state, _]:
                raise JobNotFailed(f"job {job_id} is {state}; only a failed job is tried again")
        raise AssertionError(answer)

    def ping(self) -> None:
        with answering():
            self._redis.ping()


def _key_reused(job_id: str) -> KeyReused:
    return KeyReused(f"this Idempotency-Key made job {job_id} from another payload; use a new key")


def _queue_full(queued: str, kind: Kind) -> QueueFull:
    return QueueFull(f"{queued} {kind} jobs are waiting already; try again later")


def _tenant_full(unfinished: str) -> TenantQueueFull:
    return TenantQueueFull(f"you have {unfinished} unfinished jobs; wait for some to end")


def _memory_full() -> StoreUnavailable:
    return StoreUnavailable(
        "the job store takes no new work, its memory is nearly full; try again later"
    )
