"""The record of every job, in Redis. Each transition is one Lua script, so it is atomic.

Nothing else may write these keys. A Celery message only says that there may be something to
claim here; losing or repeating one changes nothing.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Literal

import redis
from pydantic import TypeAdapter, ValidationError
from redis.commands.core import Script

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
from core.job_specs import JobSpec
from core.jobs import Job, JobState, Lease
from core.progress import Preview, Progress
from core.redis_connection import answering
from core.samples import Samples

SCRIPTS = (
    *("submit", "claim", "beat", "progress", "samples", "commit", "release", "cancel", "reap"),
    "retry",
)
IDEMPOTENCY_KEY_LIFE_MS = 24 * 3600 * 1000
# How much sooner, in units of cost, a worker takes jobs of the model it already holds.
AFFINITY = 16.0
PATIENCE_MS = 250
"""A job that came less than this ago is left to workers that hold less: time to wake one."""
ENDED = "ended"
"""The channel on which the id of every job that ends is published (lua/prelude.lua)."""
PRIORITIES = 3
PRIORITY_SCORE = 10**9
"""What a priority adds to a job's place (lua/submit.lua)."""
PREVIEW_LIFE_MS = 60 * 1000

Kind = Literal["generation", "erasure", "evaluation"]
Verdict = Literal["lost", "cancelled", "late"]

_specs: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_previews: TypeAdapter[list[Preview]] = TypeAdapter(list[Preview])
_samples: TypeAdapter[list[Samples]] = TypeAdapter(list[Samples])


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
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis, terms: dict[Kind, Terms]) -> None:
        self._redis = client
        self._terms = terms
        lua = resources.files("core") / "lua"
        prelude = (lua / "prelude.lua").read_text()
        self._scripts: dict[str, Script] = {
            name: client.register_script(prelude + (lua / f"{name}.lua").read_text())
            for name in SCRIPTS
        }

    # --- what the service does -------------------------------------------------------------

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
        verdict, value = self._call(
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
            "" if deadline_s is None else _ms(deadline_s),
            webhook or "",
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
                raise StoreUnavailable(
                    "the job store takes no new work, its memory is nearly full; try again later"
                )
            case "full":
                raise _queue_full(value, spec.kind)
            case _:
                raise TenantQueueFull(f"you have {value} unfinished jobs; wait for some to end")

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
        """Raises JobNotFound, also when the record has expired."""
        with answering():
            fields: Any = self._redis.hgetall(f"job:{job_id}")
        if not fields:
            raise JobNotFound(f"no job {job_id}; it never existed, or it ended long ago")
        return _job(fields)

    def cancel(self, job_id: str) -> Job:
        """End a queued job now; ask the worker of a running one to stop at its next step.

        Of one that is cancelled already it is a repetition: the first answer may have been lost.

        Raises:
            JobNotFound.
            JobEnded: in another way.
        """
        terms = self._terms[self.get(job_id).spec.kind]
        state = self._call("cancel", job_id, _ms(terms.keep_s))
        if state is None:
            raise JobNotFound(f"no job {job_id}; it ended long ago")
        if JobState(state).ended and state != JobState.CANCELLED:
            raise JobEnded(f"job {job_id} has already {state}")
        return self.get(job_id)

    def retry(self, job_id: str) -> Job:
        """Queue a failed job again: it keeps its id, and gets as many attempts as it had.

        Raises:
            JobNotFound, JobNotFailed, QueueFull.
        """
        kind = self.get(job_id).spec.kind
        terms = self._terms[kind]
        answer = self._call("retry", job_id, terms.max_queued, terms.max_attempts)
        if answer is None:
            raise JobNotFound(f"no job {job_id}; it ended long ago")
        match answer:
            case ["again", _]:
                return self.get(job_id)
            case ["full", queued]:
                raise _queue_full(queued, kind)
            case [state, _]:
                raise JobNotFailed(f"job {job_id} is {state}; only a failed job is tried again")
        raise AssertionError(answer)

    def dead(self) -> list[Job]:
        """Those that used up their attempts, the latest first; of all kinds and tenants."""
        with answering():
            ids: Any = self._redis.lrange("dead", 0, -1)
            pipe = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(f"job:{job_id}")
            records = pipe.execute()
            for job_id, fields in zip(ids, records, strict=True):
                if not fields:  # it has expired
                    self._redis.lrem("dead", 0, job_id)
        return [_job(fields) for fields in records if fields]

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
                pipe = self._redis.pipeline(transaction=False)
                for job_id in ids:
                    pipe.hgetall(f"job:{job_id}")
                records = pipe.execute()
                expired = [i for i, fields in zip(ids, records, strict=True) if not fields]
                if expired:
                    self._redis.zrem(index, *expired)
                found += [_job(fields) for fields in records if fields]
                start += len(ids) - len(expired)
        return found[:limit]

    def unfinished(self, kind: Kind, *, limit: int) -> list[Job]:
        """Those that run, then those that wait, in the order of their places; up to `limit`."""
        with answering():
            classes: Any = self._redis.smembers(f"classes:{kind}")
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrange("leases", 0, -1)
            for queue_class in classes:
                pipe.zrange(f"queue:{kind}:{queue_class}", 0, limit - 1, withscores=True)
            leased, *queues = pipe.execute()
            waiting = sorted((place, job_id) for queue in queues for job_id, place in queue)
            pipe = self._redis.pipeline(transaction=False)
            for job_id in (*leased, *(job_id for _, job_id in waiting[:limit])):
                pipe.hgetall(f"job:{job_id}")
            jobs = [_job(fields) for fields in pipe.execute() if fields]
        open_ones = [job for job in jobs if job.spec.kind == kind and not job.state.ended]
        return open_ones[:limit]

    def queued(self, kind: Kind) -> int:
        with answering():
            count: Any = self._redis.get(f"queued:{kind}")
        return int(count or 0)

    def depths(self, kind: Kind) -> dict[int, int]:
        """How many jobs wait, by priority."""
        counts = dict.fromkeys(range(PRIORITIES), 0)
        with answering():
            classes: Any = self._redis.smembers(f"classes:{kind}")
            pipe = self._redis.pipeline(transaction=False)
            for queue_class in classes:
                for priority in counts:
                    low, high = priority * PRIORITY_SCORE, (priority + 1) * PRIORITY_SCORE
                    pipe.zcount(f"queue:{kind}:{queue_class}", low, f"({high}")
            for place, count in enumerate(pipe.execute()):
                counts[place % PRIORITIES] += count
        return counts

    def outcomes(self, kind: Kind) -> dict[str, int]:
        """How many jobs have ever ended, by the state they ended in."""
        with answering():
            counted: Any = self._redis.hgetall(f"outcomes:{kind}")
        ended = [state.value for state in JobState if state.ended]
        return {state: int(counted.get(state, 0)) for state in ended}

    def ahead(self, kind: Kind, job_id: str) -> int:
        """How many waiting jobs have a better place than `job_id`; workers may bend that a little.

        0 for a job that does not wait.
        """
        with answering():
            score: Any = self._redis.hget(f"job:{job_id}", "score")
            pipe = self._redis.pipeline(transaction=False)
            classes: Any = self._redis.smembers(f"classes:{kind}")
            for queue_class in classes:
                pipe.zscore(f"queue:{kind}:{queue_class}", job_id)
                pipe.zcount(f"queue:{kind}:{queue_class}", "-inf", f"({score or 0}")
            answers = pipe.execute()
        places, counts = answers[::2], answers[1::2]
        return sum(counts) if any(place is not None for place in places) else 0

    def events(self, job_id: str, *, after: str = "0") -> list[tuple[str, dict[str, str]]]:
        """What happened to a job after stream entry `after`: (entry id, fields), oldest first."""
        with answering():
            entries: Any = self._redis.xrange(f"events:{job_id}", min=f"({after}")
        return list(entries)

    def has_forgotten_events(self, job_id: str, *, after: str = "0") -> bool:
        """Whether entries after `after` may be gone: a long job keeps only its latest ones."""
        with answering():
            try:
                stream: Any = self._redis.xinfo_stream(f"events:{job_id}")
            except redis.ResponseError:
                return False  # there is no stream
        if stream["entries-added"] == stream["length"] or not stream["first-entry"]:
            return False
        return _entry(after) < _entry(stream["first-entry"][0])

    def previews(self, job_id: str) -> list[Preview]:
        """The latest of each picture, in their order; none of a job that does not run."""
        with answering():
            kept: Any = self._redis.get(f"previews:{job_id}")
        return _previews.validate_json(kept) if kept else []

    def samples(self, job_id: str) -> list[Samples]:
        """The first round of its latest attempt and the newest, if any; one that is both once."""
        with answering():
            kept: Any = self._redis.get(f"samples:{job_id}")
        return _samples.validate_json(kept) if kept else []

    def ping(self) -> None:
        with answering():
            self._redis.ping()

    # --- what a worker does ----------------------------------------------------------------

    def claim(
        self, kind: Kind, owner: str, *, slots: int, lease_s: float, held: str = "", idle: bool
    ) -> list[Lease]:
        """Lease up to `slots` units of waiting work.

        Args:
            owner: the worker's name, stable over its restarts.
            held: the class it has loaded, which it prefers a little.
            idle: it holds nothing now, so it may take a job that must run alone.
        """
        keep_ms = _ms(self._terms[kind].keep_s)
        values = self._call(
            "claim",
            kind,
            owner,
            slots,
            _ms(lease_s),
            held,
            AFFINITY,
            int(idle),
            keep_ms,
            PATIENCE_MS,
        )
        leases = []
        for (
            job_id,
            token,
            attempt,
            alone,
            spec,
            tenant,
            request_id,
            waited_ms,
        ) in _chunks(values, 8):
            try:
                parsed = _specs.validate_json(spec)
            except ValidationError:
                reason = "its spec is not one that this version understands"
                self._call("commit", job_id, token, JobState.FAILED.value, "", reason, keep_ms)
                continue
            leases.append(
                Lease(
                    job_id=job_id,
                    token=token,
                    attempt=attempt,
                    alone=bool(int(alone)),
                    spec=parsed,
                    tenant=tenant,
                    request_id=request_id,
                    waited_s=int(waited_ms) / 1000,
                )
            )
        return leases

    def beat(self, leases: Sequence[tuple[str, str]], *, lease_s: float) -> dict[str, Verdict]:
        """Keep (job id, token) leases alive; returns those that are not to go on, and why."""
        flat = [value for lease in leases for value in lease]
        answer = self._call("beat", _ms(lease_s), *flat)
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def report(self, lease: Lease, progress: Progress, previews: Sequence[Preview] = ()) -> bool:
        """Whether the lease still holds. `previews` take the place of earlier ones, if any."""
        shown = _previews.dump_json([*previews]).decode() if previews else ""
        told = progress.model_dump_json()
        return bool(
            self._call("progress", lease.job_id, lease.token, told, shown, PREVIEW_LIFE_MS)
        )

    def show(self, lease: Lease, samples: Sequence[Samples]) -> bool:
        """Whether the lease still holds. They take the place of what was shown before."""
        shown = _samples.dump_json([*samples]).decode()
        return bool(self._call("samples", lease.job_id, lease.token, shown))

    def succeed(self, lease: Lease, result: dict[str, Any]) -> bool:
        """Whether the result counts: a worker that lost its lease changes nothing."""
        return self._commit(lease, JobState.SUCCEEDED, result=json.dumps(result))

    def fail(self, lease: Lease, reason: str, result: dict[str, Any] | None = None) -> bool:
        return self._commit(lease, JobState.FAILED, result=_json(result), reason=reason)

    def acknowledge_cancel(self, lease: Lease, result: dict[str, Any] | None = None) -> bool:
        """End a cancelled job, with what was finished before."""
        return self._commit(lease, JobState.CANCELLED, result=_json(result))

    def hand_back(self, lease: Lease, why: str) -> bool:
        """Return a job untouched, as a worker does that shuts down; no attempt is counted."""
        return self._release(lease, counted=False, why=why)

    def try_again(self, lease: Lease, why: str) -> bool:
        """Queue it for another attempt, or fail it when it has had its last."""
        return self._release(lease, counted=True, why=why)

    def give_back(self, leases: Sequence[tuple[str, str]], why: str) -> int:
        """Requeue what a worker held that is gone, by (job id, token); returns how many of those
        leases it still had. Their attempts count.
        """
        keep_ms = self._longest_keep_ms
        return sum(int(self._call("release", *lease, 1, why, keep_ms)) for lease in leases)

    def take_back(self, owner: str) -> int:
        """Requeue what an earlier life of `owner` held; returns how many jobs wait again."""
        return int(self._call("reap", owner, self._longest_keep_ms))

    def reap(self) -> int:
        """Requeue every job whose lease has lapsed; returns how many wait again."""
        return int(self._call("reap", "", self._longest_keep_ms))

    # --- inside ----------------------------------------------------------------------------

    @property
    def _longest_keep_ms(self) -> int:
        return max(_ms(terms.keep_s) for terms in self._terms.values())

    def _commit(
        self, lease: Lease, state: JobState, *, result: str = "", reason: str = ""
    ) -> bool:
        keep_ms = _ms(self._terms[lease.spec.kind].keep_s)
        return bool(
            self._call("commit", lease.job_id, lease.token, state.value, result, reason, keep_ms)
        )

    def _release(self, lease: Lease, *, counted: bool, why: str) -> bool:
        keep_ms = _ms(self._terms[lease.spec.kind].keep_s)
        return bool(self._call("release", lease.job_id, lease.token, int(counted), why, keep_ms))

    def _call(self, script: str, *args: str | float) -> Any:
        with answering():
            return self._scripts[script](args=list(args))


_read: dict[str, Callable[[str], Any]] = {
    "spec": _specs.validate_json,
    "created_at": lambda ms: int(ms) / 1000,
    "started_at": lambda ms: int(ms) / 1000,
    "finished_at": lambda ms: int(ms) / 1000,
    "deadline": lambda ms: int(ms) / 1000,
    "progress": Progress.model_validate_json,
    "result": json.loads,
}


def _job(fields: dict[str, str]) -> Job:
    values = {name: _read.get(name, str)(text) for name, text in fields.items()}
    return Job(**values, cancelling="cancel" in fields)


def _json(result: dict[str, Any] | None) -> str:
    return "" if result is None else json.dumps(result)


def _key_reused(job_id: str) -> KeyReused:
    return KeyReused(f"this Idempotency-Key made job {job_id} from another payload; use a new key")


def _queue_full(queued: str, kind: Kind) -> QueueFull:
    return QueueFull(f"{queued} {kind} jobs are waiting already; try again later")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def cancelled_channel(owner: str) -> str:
    """Where the ids of jobs are published that a worker is to stop (lua/cancel.lua)."""
    return f"cancelled:{owner}"


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _entry(stream_id: str) -> tuple[int, int]:
    """An id of a stream's entry, so that ids can be compared."""
    time_ms, _, number = stream_id.partition("-")
    return int(time_ms), int(number or 0)
