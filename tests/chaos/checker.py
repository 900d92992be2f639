"""Compares what clients were promised with what became of it."""

import math
from collections import Counter
from collections.abc import Mapping

import redis

from core.errors import JobNotFound
from core.job_specs import Kind
from core.job_store import JobStore
from core.jobs import Job
from tests.chaos.cancels import judge_cancel
from tests.chaos.clients import ENDED
from tests.chaos.faults import OF_TRAINERS, Fault
from tests.chaos.journal import Journal, Order
from tests.chaos.pictures import check_pictures
from tests.chaos.streams import Entry, ended_at, faults_of, redeliveries
from tests.chaos.variants import KIND_OF_MODEL
from tests.chaos.verdict import Verdict, attribute, judge_first


def check(
    journal: Journal,
    records: dict[str, Job],
    streams: dict[str, list[Entry]],
    faults: list[Fault],
    digests: Mapping[str, str],
) -> Verdict:
    """
    Args:
        records: of every job in the store, by id, those that no client knows of included.
        streams: of the same jobs.
        digests: of the files of each model, by its id.
    """
    felt = [fault for fault in faults if fault.kind not in OF_TRAINERS]
    verdict = Verdict(jobs=len(journal.orders), surprises=list(journal.surprises))
    verdict.lives = {job.id: life_of(job) for job in records.values()}
    verdict.jobs_of = Counter(KIND_OF_MODEL[order.model] for order in journal.orders)
    for order in journal.orders:
        job = records.get(order.job_id)
        if job is None or job.state not in ENDED:
            state = "gone" if job is None else job.state
            verdict.lost.append(f"job {order.job_id} is {state}")
            continue
        verdict.ended[job.state] += 1
        verdict.attempts[job.attempt] += 1
        _check_end(order, job, verdict)
        entries = streams[order.job_id]
        broken = faults_of(entries, job.state)
        if order.heard is not None and order.heard != [entry_id for entry_id, _ in entries]:
            broken.append(f"its listener heard {order.heard}")
        if broken:
            verdict.broken_streams.append(f"job {order.job_id}: {'; '.join(broken)}")
        for one in redeliveries(entries):
            attribute(one, felt, verdict)
        if order.cancel is not None:
            judge_cancel(order.cancel, job, ended_at(entries), felt, verdict)
    judge_first(verdict, felt)
    _check_nobody_else(journal, records, verdict)
    check_pictures(journal.orders, digests, verdict)
    return verdict


def read_store(jobs: JobStore, kind: Kind) -> tuple[dict[str, Job], dict[str, list[Entry]]]:
    """Every job of a kind, and every stream."""
    records: dict[str, Job] = {}
    last: str | None = None
    while page := jobs.lists.latest(kind, limit=500, before=last):
        records |= {job.id: job for job in page}
        last = page[-1].id
    return records, {job_id: jobs.news.events(job_id) for job_id in records}


def life_of(job: Job) -> tuple[float, float]:
    """When it was accepted and when it ended, in unix seconds."""
    return job.created_at, job.finished_at or math.inf


def left_over(client: redis.Redis) -> list[str]:
    """What Redis counts, holds or waits for, once everything that was accepted has ended."""
    found = []
    for pattern in ("queued:*", "queue:*", "open:*", "owner:*", "leases", "deadlines"):
        for key in sorted(client.scan_iter(pattern)):
            kind = client.type(key)
            if kind == "string" and int(client.get(key) or 0) == 0:
                continue
            held = {"string": client.get, "hash": client.hgetall, "set": client.smembers}
            read = held.get(kind, lambda name: client.zrange(name, 0, -1))
            found.append(f"{key}: {read(key)}")
    return found


def missing(journal: Journal, jobs: JobStore) -> int:
    """How many accepted jobs have not ended yet, or are gone."""
    return sum(not _has_ended(jobs, job_id) for job_id in journal.job_ids)


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
    if job.state == "cancelled" and order.cancel is None:
        verdict.lost.append(f"job {job.id} was cancelled by nobody")
    if order.cancel and order.cancel.while_it_was == "queued" and job.state != "cancelled":
        verdict.doubled.append(f"job {job.id} was cancelled while queued, and {job.state} then")
    if job.state == "succeeded" and order.state and order.picture is None:
        verdict.lost.append(f"job {job.id} succeeded, and there is no picture")


def _check_nobody_else(journal: Journal, records: dict[str, Job], verdict: Verdict) -> None:
    """One job for each order, and no job without one."""
    ordered = Counter(order.job_id for order in journal.orders)
    verdict.doubled += [f"two orders got job {one}" for one, n in ordered.items() if n > 1]
    verdict.doubled += [f"nobody ordered job {one}" for one in records.keys() - ordered.keys()]
