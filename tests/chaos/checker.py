"""Compares what clients were promised with what became of it."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from core.errors import JobNotFound
from core.job_store import JobStore
from core.jobs import Job
from tests.chaos.clients import ENDED, Journal, Order, pixels
from tests.chaos.faults import Fault
from tests.chaos.streams import Entry, Redelivery, ended_at, faults_of, redeliveries

ROUNDING = 1
"""Of 255, between pictures of one seed that shared different batches."""
FELT_WITHIN_S = 30.0
"""A fault later than this before a redelivery is not taken for its cause."""


@dataclass
class Verdict:
    """`lost`, `doubled` and the like hold what was found, in words: empty is good."""

    jobs: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong_pictures: list[str] = field(default_factory=list)
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
        return not any(
            (self.lost, self.doubled, self.wrong_pictures, self.broken_streams, self.surprises)
        )

    @property
    def all_redelivered_s(self) -> list[float]:
        return sorted(one for some in self.redelivered_s.values() for one in some)

    def complaints(self) -> list[str]:
        return [
            *(f"lost: {one}" for one in self.lost),
            *(f"doubled: {one}" for one in self.doubled),
            *(f"wrong picture: {one}" for one in self.wrong_pictures),
            *(f"broken stream: {one}" for one in self.broken_streams),
            *(f"surprise: {one}" for one in self.surprises),
        ]


def check(
    journal: Journal,
    records: dict[str, Job],
    streams: dict[str, list[Entry]],
    faults: list[Fault],
) -> Verdict:
    """
    Args:
        records: of every job in the store, by id, those that no client knows of included.
        streams: of the same jobs.
    """
    verdict = Verdict(jobs=len(journal.orders), surprises=list(journal.surprises))
    drawn: dict[tuple[str, int, int], list[tuple[str, np.ndarray]]] = defaultdict(list)
    for order in journal.orders:
        job = records.get(order.job_id)
        if job is None or job.state not in ENDED:
            state = "gone" if job is None else job.state
            verdict.lost.append(f"job {order.job_id} is {state}")
            continue
        verdict.ended[job.state] += 1
        verdict.attempts[job.attempt] += 1
        _check_end(order, job, verdict)
        if order.picture is not None:
            drawn[order.prompt, order.seed, order.steps].append(
                (order.job_id, pixels(order.picture))
            )
        entries = streams[order.job_id]
        broken = faults_of(entries, job.state)
        if order.heard is not None and order.heard != [entry_id for entry_id, _ in entries]:
            broken.append(f"its listener heard {order.heard}")
        if broken:
            verdict.broken_streams.append(f"job {order.job_id}: {'; '.join(broken)}")
        for one in redeliveries(entries):
            _attribute(one, faults, verdict)
        if order.cancel_sent_at is not None and job.state == "cancelled":
            took_s = ended_at(entries) - order.cancel_sent_at
            verdict.cancelled_s[order.cancelled_while].append(took_s)
    _check_nobody_else(journal, records, verdict)
    _check_pictures(drawn, verdict)
    return verdict


def read_store(jobs: JobStore) -> tuple[dict[str, Job], dict[str, list[Entry]]]:
    """Every job, and every stream."""
    records: dict[str, Job] = {}
    last: str | None = None
    while page := jobs.lists.latest("generation", limit=500, before=last):
        records |= {job.id: job for job in page}
        last = page[-1].id
    return records, {job_id: jobs.news.events(job_id) for job_id in records}


def missing(journal: Journal, jobs: JobStore) -> int:
    """How many accepted jobs have not ended yet, or are gone."""
    return sum(not _has_ended(jobs, order.job_id) for order in journal.orders)


def _has_ended(jobs: JobStore, job_id: str) -> bool:
    try:
        return jobs.get(job_id).state in ENDED
    except JobNotFound:
        return False


def _check_end(order: Order, job: Job, verdict: Verdict) -> None:
    """What the client saw is what it would see now."""
    if order.state and order.state != job.state:
        verdict.doubled.append(f"job {job.id} ended as {order.state}, and again as {job.state}")
    if job.state == "failed":
        verdict.lost.append(f"job {job.id} failed: {job.reason}")
    if job.state == "cancelled" and order.cancel_sent_at is None:
        verdict.lost.append(f"job {job.id} was cancelled by nobody")
    if job.state == "succeeded" and order.state and order.picture is None:
        verdict.lost.append(f"job {job.id} succeeded, and there is no picture")


def _check_nobody_else(journal: Journal, records: dict[str, Job], verdict: Verdict) -> None:
    """One job for each order, and no job without one."""
    ordered = Counter(order.job_id for order in journal.orders)
    verdict.doubled += [f"two orders got job {one}" for one, n in ordered.items() if n > 1]
    verdict.doubled += [f"nobody ordered job {one}" for one in records.keys() - ordered.keys()]


def _check_pictures(
    drawn: dict[tuple[str, int, int], list[tuple[str, np.ndarray]]], verdict: Verdict
) -> None:
    """The same seed, the same picture; another seed, another one."""
    firsts = {}
    for order, pictures in drawn.items():
        first_id, first = pictures[0]
        firsts[order] = first
        for job_id, picture in pictures[1:]:
            if picture.shape != first.shape or np.abs(picture - first).max() > ROUNDING:
                verdict.wrong_pictures.append(
                    f"jobs {first_id} and {job_id} drew {order} differently"
                )
    for order, first in firsts.items():
        for other, picture in firsts.items():
            if (
                order < other
                and order[:2] != other[:2]
                and np.abs(first - picture).max() <= ROUNDING
            ):
                verdict.wrong_pictures.append(f"{order} and {other} are the same picture")


def _attribute(one: Redelivery, faults: list[Fault], verdict: Verdict) -> None:
    """To the last fault while the first attempt ran; a handed-back job was not interrupted."""
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


def percentile(values: Iterable[float], share: float) -> float:
    """0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def median(values: Iterable[float]) -> float:
    """0 of nothing."""
    ordered = list(values)
    return statistics.median(ordered) if ordered else 0.0
