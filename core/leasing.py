"""What workers do with jobs: they lease them, keep the leases alive, and say how it went.

Who has lost a lease changes nothing more (see `Lease`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from core.job_scripts import JobScripts, ms
from core.job_specs import Kind, parse_spec
from core.jobs import JobState, Lease
from core.progress import PREVIEWS, Preview, Progress
from core.samples import ROUNDS, Samples

AFFINITY = 16.0
"""How much sooner, in units of cost, a worker takes jobs of the model it draws with already; of
those it has loaded besides, half as much."""
PATIENCE_MS = 250
"""A job that came less than this ago is left to workers that hold less, or hold its model."""
PREVIEW_LIFE_MS = 60 * 1000
LEASE_LOST, FOLLOWED = 0, 2
"""What lua/progress.lua says of a report."""

Verdict = Literal["lost", "cancelled", "late"]


class Report(NamedTuple):
    lease: Lease
    progress: Progress
    previews: Sequence[Preview]


class Leasing:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, scripts: JobScripts, keep_s: Mapping[Kind, float]) -> None:
        """
        Args:
            keep_s: how long the record of a job that has ended is kept, where it does not say so
                itself: jobs that an earlier version accepted.
        """
        self._scripts = scripts
        self._keep_s = keep_s

    def claim(
        self,
        kind: Kind,
        owner: str,
        *,
        slots: int,
        lease_s: float,
        held: Sequence[str] = (),
        without: Sequence[str] = (),
        idle: bool,
        known: Iterable[Lease] | None = None,
    ) -> list[Lease]:
        """Lease up to `slots` units of waiting work.

        Args:
            owner: the worker's name, stable over its restarts.
            held: the classes it has at hand, which it prefers a little, the first one the most.
                What has just come of others is left to workers that are drawing and have it.
            without: classes of which it takes none now.
            idle: it holds nothing now, so it may take a job that must run alone.
            known: all leases that it knows to have. What else it was given, in a reply that was
                lost on the way, waits again, uncounted. None: unsaid, so it keeps everything.
        """
        keep_ms = ms(self._keep_s[kind])
        values = self._scripts.run(
            "claim",
            kind,
            owner,
            slots,
            ms(lease_s),
            " ".join(held),
            AFFINITY,
            int(idle),
            keep_ms,
            PATIENCE_MS,
            " ".join(without),
            "unsaid" if known is None else " ".join(lease.token for lease in known),
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
                parsed = parse_spec(spec)
            except ValidationError:
                reason = "its spec is not one that this version understands"
                failed = JobState.FAILED.value
                self._scripts.run("commit", job_id, token, failed, "", reason, keep_ms)
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
        answer = self._scripts.run("beat", ms(lease_s), *flat)
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def report(self, lease: Lease, progress: Progress, previews: Sequence[Preview] = ()) -> bool:
        """Whether the lease still holds. `previews` take the place of earlier ones, if any."""
        (heard,) = self._report([Report(lease, progress, previews)])
        return heard != LEASE_LOST

    def report_all(self, reports: Sequence[Report]) -> list[bool]:
        """The same of several jobs at once; whether a client follows each, step by step."""
        return [heard == FOLLOWED for heard in self._report(reports)]

    def show(self, lease: Lease, samples: Sequence[Samples]) -> bool:
        """Whether the lease still holds. They take the place of what was shown before."""
        shown = ROUNDS.dump_json([*samples]).decode()
        return self._tell("samples", lease, shown)

    def succeed(self, lease: Lease, result: dict[str, Any]) -> bool:
        """Whether the result counts: a worker that lost its lease changes nothing."""
        return self._commit(lease, JobState.SUCCEEDED, result=json.dumps(result))

    def fail(self, lease: Lease, reason: str, result: dict[str, Any] | None = None) -> bool:
        return self._commit(lease, JobState.FAILED, result=_json(result), reason=reason)

    def acknowledge_cancel(self, lease: Lease, result: dict[str, Any] | None = None) -> bool:
        """End a cancelled job, with what was finished before."""
        return self._commit(lease, JobState.CANCELLED, result=_json(result))

    def end(self, job_id: str, token: str, state: JobState, *, reason: str = "") -> bool:
        """End a job for a worker that cannot do so now; nothing of it is finished."""
        keep_ms = self._longest_keep_ms
        return bool(self._scripts.run("commit", job_id, token, state.value, "", reason, keep_ms))

    def hand_back(self, lease: Lease, why: str) -> bool:
        """Return a job untouched, as a worker does that shuts down; no attempt is counted."""
        return self._release(lease, counted=False, why=why)

    def try_again(self, lease: Lease, why: str) -> bool:
        """Queue it for another attempt, or fail it when it has had its last."""
        return self._release(lease, counted=True, why=why)

    def give_back(
        self,
        leases: Sequence[tuple[str, str]],
        why: str,
        *,
        counted: bool = True,
        outage: bool = False,
    ) -> int:
        """Requeue what a worker held that is gone, by (job id, token); returns how many of those
        leases it still had.

        Args:
            counted: whether the attempts count.
            outage: the worker lives, and let go since Redis was away. These attempts do not count,
                of each job as often as it may be tried; others do.
        """
        keep_ms, counts = self._longest_keep_ms, "outage" if outage else int(counted)
        run = self._scripts.run
        return sum(int(run("release", *lease, counts, why, keep_ms)) for lease in leases)

    def take_back(self, owner: str) -> int:
        """Requeue what an earlier life of `owner` held; returns how many jobs wait again."""
        return int(self._scripts.run("reap", owner, self._longest_keep_ms))

    def reap(self) -> int:
        """Requeue every job whose lease has lapsed; returns how many wait again."""
        return int(self._scripts.run("reap", "", self._longest_keep_ms))

    @property
    def _longest_keep_ms(self) -> int:
        return max(map(ms, self._keep_s.values()))

    def _report(self, reports: Sequence[Report]) -> list[int]:
        """What lua/progress.lua returns of each."""
        flat: list[str] = []
        for lease, progress, previews in reports:
            shown = PREVIEWS.dump_json([*previews]).decode() if previews else ""
            flat += [lease.job_id, lease.token, progress.model_dump_json(), shown]
        return [int(heard) for heard in self._scripts.run("progress", PREVIEW_LIFE_MS, *flat)]

    def _commit(
        self, lease: Lease, state: JobState, *, result: str = "", reason: str = ""
    ) -> bool:
        keep_ms = ms(self._keep_s[lease.spec.kind])
        return self._tell("commit", lease, state.value, result, reason, keep_ms)

    def _release(self, lease: Lease, *, counted: bool, why: str) -> bool:
        keep_ms = ms(self._keep_s[lease.spec.kind])
        return self._tell("release", lease, int(counted), why, keep_ms)

    def _tell(self, script: str, lease: Lease, *args: str | float) -> bool:
        """Whether the lease still held."""
        return bool(self._scripts.run(script, lease.job_id, lease.token, *args))


def cancelled_channel(owner: str) -> str:
    """Where the ids of jobs are published that a worker is to stop (lua/cancel.lua)."""
    return f"cancelled:{owner}"


def _json(result: dict[str, Any] | None) -> str:
    return "" if result is None else json.dumps(result)


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
