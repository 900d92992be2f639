"""What was found, and how long what was interrupted took to begin again."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.faults import OF_TRAINERS, Fault
from tests.chaos.streams import Redelivery

FELT_WITHIN_S = 30.0
"""A fault later than this before a redelivery is not taken for its cause."""


@dataclass
class Verdict:
    """`lost`, `doubled` and the like hold what was found, in words: empty is good."""

    jobs: int = 0
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
    cancelled_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """State in which it was cancelled -> seconds from the request to the job's end."""

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
        ]


def attribute(one: Redelivery, faults: Sequence[Fault], verdict: Verdict) -> None:
    """To the first fault that its first attempt can have felt; a handed-back job felt none."""
    if "shutting down" in one.why:
        return
    causes = [
        fault
        for fault in faults
        if one.began_at <= fault.at <= one.waited_again_at
        and one.waited_again_at - fault.at < FELT_WITHIN_S + fault.lasted_s
    ]
    if causes:
        cause = causes[0]
        verdict.redelivered_s[cause.kind].append(one.began_again_at - cause.at)
        verdict.requeued_s[cause.kind].append(one.waited_again_at - cause.at)


def median(values: Iterable[float]) -> float:
    """0 of nothing."""
    ordered = list(values)
    return statistics.median(ordered) if ordered else 0.0
