"""What was found, and how long what was interrupted took to begin again."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.faults import OF_BROKERS, OF_TRAINERS, Fault
from tests.chaos.streams import Redelivery

FELT_WITHIN_S = 30.0
"""A fault later than this before a redelivery is not taken for its cause."""
BEGUN_AGAIN_WITHIN_S = {"pool child killed": 3.0, "worker killed": 5.0}
"""What is promised of a kill that no other fault overlaps, on a machine that is not crowded."""
BROKER_AWAY = "the broker was away"
"""Said by a worker that had no answer from it."""
MINUTE_S = 60.0
"""Over which the machine tells how many want a core."""
RECOVERS_WITHIN_S = 10.0
"""So long after a fault its victim may still be starting: a worker imports torch."""


@dataclass
class Verdict:
    """`lost`, `doubled` and the like hold what was found, in words: empty is good."""

    jobs: int = 0
    jobs_of: Counter[str] = field(default_factory=Counter)
    """Kind of model -> how many were accepted."""
    ended: Counter[str] = field(default_factory=Counter)
    erasures: Counter[str] = field(default_factory=Counter)
    """State -> how many ended so."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong_pictures: list[str] = field(default_factory=list)
    wrong_models: list[str] = field(default_factory=list)
    broken_streams: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    attempts: Counter[int] = field(default_factory=Counter)
    redelivered_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Fault -> seconds from it to the next start of each job that it interrupted."""
    requeued_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The same until it waited again, for whichever worker is free first."""
    cancelled_s: dict[tuple[str, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Kind, and state in which it was cancelled -> seconds from the request to the job's end."""
    cancels_judged_s: dict[tuple[str, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """The same of those that are far from any fault, however they ended."""
    slow_cancels: list[str] = field(default_factory=list)
    first_again: dict[Fault, Redelivery] = field(default_factory=dict)
    """Fault -> of what it interrupted, the one that was begun again first."""
    unexplained: list[str] = field(default_factory=list)
    """Redeliveries that no fault can have caused: in no figure above, and to be looked into."""
    slow: list[str] = field(default_factory=list)
    """Redeliveries that took longer than is promised."""
    left_over: list[str] = field(default_factory=list)
    """What the store still counts when everything has ended."""
    lives: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Job -> when it was accepted and when it ended, in unix seconds."""

    @property
    def clean(self) -> bool:
        return not self.complaints()

    @property
    def all_redelivered_s(self) -> list[float]:
        """Of pictures: after the death of a trainer worker, another one has to start first."""
        return sorted(
            one
            for kind, some in self.redelivered_s.items()
            if kind not in OF_TRAINERS
            for one in some
        )

    def complaints(self) -> list[str]:
        return [
            *(f"lost: {one}" for one in self.lost),
            *(f"doubled: {one}" for one in self.doubled),
            *(f"wrong picture: {one}" for one in self.wrong_pictures),
            *(f"wrong model: {one}" for one in self.wrong_models),
            *(f"broken stream: {one}" for one in self.broken_streams),
            *(f"surprise: {one}" for one in self.surprises),
            *(f"slow: {one}" for one in [*self.slow, *self.slow_cancels]),
            *(f"left over: {one}" for one in self.left_over),
        ]

    def struck_by(self, kind: str, found: Sequence[str], faults: Sequence[Fault]) -> int:
        """How many of what was found are of jobs that lived through a fault of this kind.

        One counts with each kind that it lived through, and with every kind where nobody knows
        when it lived: which of them did it is for a reader of its history to say.
        """
        times = [(fault.at, fault.at + fault.lasted_s) for fault in faults if fault.kind == kind]
        return sum(
            any(begun <= ended and over >= accepted for begun, over in times)
            for one in found
            for accepted, ended in [self._life_of(one)]
        )

    def _life_of(self, found: str) -> tuple[float, float]:
        """Of the job that is named in words."""
        named = (life for job_id, life in self.lives.items() if job_id in found)
        return next(named, (-math.inf, math.inf))


def attribute(
    one: Redelivery,
    faults: Sequence[Fault],
    verdict: Verdict,
    *,
    unmeasured: Sequence[Fault] = (),
) -> None:
    """To the first fault that its first attempt can have felt; a handed-back job felt none.

    One that was begun while a fault lasted is put down to it only where nothing struck it since.

    Judged is when it waits again after a kill that no other fault overlaps; see `judge_first`.

    Args:
        unmeasured: faults that explain it, too, and have figures of others alone.
    """
    if "shutting down" in one.why:
        return
    causes = _felt(one, faults)
    if not causes:
        if not _felt(one, unmeasured):
            verdict.unexplained.append(f"at {one.waited_again_at:.1f}: {one.why}")
        return
    cause = causes[0]
    waited_s = one.waited_again_at - cause.at
    verdict.redelivered_s[cause.kind].append(one.began_again_at - cause.at)
    verdict.requeued_s[cause.kind].append(waited_s)
    first = verdict.first_again.setdefault(cause, one)
    if one.began_again_at < first.began_again_at:
        verdict.first_again[cause] = one
    _judge("waits again", waited_s, cause, one, faults, verdict)


def judge_first(verdict: Verdict, faults: Sequence[Fault]) -> None:
    """Of the jobs that one kill interrupted, the first is to be begun again in time.

    The others are suspects as well, each drawn alone, and wait for one another. The one allowance
    is for the machine: the bound grows with those who want a core (`tests.crowding`).
    """
    for cause, one in verdict.first_again.items():
        after_s = one.began_again_at - cause.at
        _judge("the first is begun again", after_s, cause, one, faults, verdict)


def _judge(
    what: str,
    after_s: float,
    cause: Fault,
    one: Redelivery,
    faults: Sequence[Fault],
    verdict: Verdict,
) -> None:
    crowding = _crowding_after(cause, faults)
    bound_s = BEGUN_AGAIN_WITHIN_S.get(cause.kind, math.inf) * crowding
    if after_s > bound_s and not _overlapped(cause, one, faults):
        verdict.slow.append(
            f"{what} {after_s:.1f} s after: {cause.kind} at {cause.at:.1f}, alone; "
            f"{bound_s:.1f} s are promised where {crowding:.1f} want each core"
        )


def _crowding_after(cause: Fault, faults: Sequence[Fault]) -> float:
    """The most that was seen until a minute later: what a fault knows is of the minute before."""
    later = (fault.crowding for fault in faults if cause.at <= fault.at <= cause.at + MINUTE_S)
    return max(cause.crowding, *later, 1.0)


def _felt(one: Redelivery, faults: Sequence[Fault]) -> list[Fault]:
    near = [
        fault
        for fault in faults
        if fault.at <= one.waited_again_at < fault.at + fault.lasted_s + FELT_WITHIN_S
    ]
    if BROKER_AWAY in one.why:
        # What a frozen broker gives away when it goes on is begun after the fault.
        return [fault for fault in near if fault.kind in OF_BROKERS]
    struck = [fault for fault in near if one.began_at <= fault.at + fault.took_s]
    return struck or [fault for fault in near if one.began_at <= fault.at + fault.lasted_s]


def _overlapped(cause: Fault, one: Redelivery, faults: Sequence[Fault]) -> bool:
    return any(
        fault.at < one.began_again_at and fault.at + fault.lasted_s + RECOVERS_WITHIN_S > cause.at
        for fault in faults
        if fault is not cause
    )


def median(values: Iterable[float]) -> float:
    """0 of nothing."""
    ordered = list(values)
    return statistics.median(ordered) if ordered else 0.0
