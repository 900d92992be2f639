"""The erased models that are there in the end, held against the erasures that were ordered."""

from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass

from core.errors import AppError
from core.jobs import Job
from core.registry import ModelRegistry
from tests.chaos.cancels import judge_cancel
from tests.chaos.checker import life_of
from tests.chaos.clients import ENDED
from tests.chaos.faults import OF_DRAWERS, OF_TRAINERS, Fault
from tests.chaos.journal import ErasureOrder, Journal
from tests.chaos.streams import Entry, ended_at, faults_of, redeliveries
from tests.chaos.verdict import Verdict, attribute

FULL_DISK = ("disk", "space")
"""Words, one of which the reason of an erasure holds that a full disk has ended: it may."""
ID_CHARS = 8
"""Of a job's id, at the end of its model's."""


@dataclass(frozen=True)
class Found:
    """A folder among the models that is no base, and was not there from the beginning."""

    model_id: str
    problem: str = ""
    """Why nobody would serve it."""
    tensors: tuple[str, ...] = ()
    """The digests of its files of tensors, in the order of their names."""


def read_models(registry: ModelRegistry, but: Container[str]) -> list[Found]:
    """Each with its signature checked, and every file against its digest.

    Args:
        but: ids of those that were there from the beginning; they are read as well, and returned
            only where nobody would serve them.
    """
    found = []
    for folder in sorted(registry.folder.iterdir()):
        if folder.name.startswith("."):
            continue
        try:
            manifest = registry.get(folder.name)
            manifest.check_files(folder)
        except AppError as error:
            found.append(Found(folder.name, problem=str(error)))
            continue
        if manifest.edit is not None and manifest.id not in but:
            tensors = {n: d for n, d in manifest.files.items() if n.endswith(".safetensors")}
            digests = tuple(digest for _, digest in sorted(tensors.items()))
            found.append(Found(folder.name, tensors=digests))
    return found


def check_erasures(
    journal: Journal,
    records: dict[str, Job],
    streams: dict[str, list[Entry]],
    models: Sequence[Found],
    faults: Sequence[Fault],
    verdict: Verdict,
) -> None:
    """Each ended once, with one model, whole and signed, the same one for the same order.

    One that ended as cancelled has none.

    Args:
        records: of every erasure in the store, by id; `streams` likewise.
    """
    ordered = Counter(order.job_id for order in journal.erasures)
    verdict.lives |= {job.id: life_of(job) for job in records.values()}
    verdict.doubled += [f"two orders got erasure {one}" for one, n in ordered.items() if n > 1]
    verdict.doubled += [f"nobody ordered erasure {one}" for one in records.keys() - ordered.keys()]
    verdict.wrong_models += [f"{one.model_id}: {one.problem}" for one in models if one.problem]
    whole = {one.model_id: one for one in models if not one.problem}
    made: dict[tuple[int, bool], list[Found]] = defaultdict(list)
    mine = [fault for fault in faults if fault.kind in OF_TRAINERS]
    everybodys = [fault for fault in faults if fault.kind not in (*OF_TRAINERS, *OF_DRAWERS)]
    for order in journal.erasures:
        job = records.get(order.job_id)
        if job is None or job.state not in ENDED:
            state = "gone" if job is None else job.state
            verdict.lost.append(f"erasure {order.job_id} is {state}")
            continue
        verdict.erasures[job.state] += 1
        if order.state and order.state != job.state:
            verdict.doubled.append(
                f"erasure {job.id} ended as {order.state}, and again as {job.state}"
            )
        _check_end(order, job, whole, faults, verdict)
        if job.state == "cancelled":
            # Whoever made it: also an attempt that was killed before it could say so.
            verdict.wrong_models += [
                f"{one.model_id} is there, and its erasure {job.id} was cancelled"
                for one in models
                if one.model_id.endswith(job.id[:ID_CHARS])
            ]
        if job.erasure is not None and job.erasure.erased_model in whole:
            made[order.seed, order.steered].append(whole[job.erasure.erased_model])
        entries = streams[order.job_id]
        if broken := faults_of(entries, job.state):
            verdict.broken_streams.append(f"erasure {job.id}: {'; '.join(broken)}")
        if order.cancel is not None:
            felt = [*mine, *everybodys]
            judge_cancel(order.cancel, job, ended_at(entries), felt, verdict)
        for one in redeliveries(entries):
            attribute(one, mine, verdict, unmeasured=everybodys)
    _check_models(journal, models, verdict)
    for (seed, steered), several in made.items():
        verdict.wrong_models += [
            f"{several[0].model_id} and {other.model_id} differ, both of seed {seed}, "
            f"{'with' if steered else 'without'} stage 2"
            for other in several[1:]
            if other.tensors != several[0].tensors
        ]


def _check_end(
    order: ErasureOrder,
    job: Job,
    whole: dict[str, Found],
    faults: Sequence[Fault],
    verdict: Verdict,
) -> None:
    """It succeeded, and its model is what its client was told; or the disk was full meanwhile; or
    it was cancelled. One that was cancelled while it ran may have had its last look behind it.
    """
    if order.cancel and order.cancel.while_it_was == "queued" and job.state != "cancelled":
        verdict.doubled.append(
            f"erasure {job.id} was cancelled while queued, and {job.state} then"
        )
    if job.state == "succeeded":
        model = job.erasure.erased_model if job.erasure else ""
        if order.model and order.model != model:
            verdict.doubled.append(f"erasure {job.id} made {order.model}, and then {model}")
        if model not in whole:
            verdict.lost.append(f"erasure {job.id} succeeded, and its model is not there whole")
    elif not (
        (job.state == "cancelled" and order.cancel is not None)
        or (job.state == "failed" and _met_a_full_disk(job, faults))
    ):
        verdict.lost.append(f"erasure {job.id} ended as {job.state}: {job.reason}")


def _met_a_full_disk(job: Job, faults: Sequence[Fault]) -> bool:
    if not any(word in (job.reason or "").lower() for word in FULL_DISK):
        return False
    began, ended = job.created_at, job.finished_at or job.created_at
    return any(
        fault.kind == "disk filled" and began <= fault.at + fault.lasted_s and fault.at <= ended
        for fault in faults
    )


def _check_models(journal: Journal, models: Sequence[Found], verdict: Verdict) -> None:
    """One model for each erasure at most, and none without one."""
    count = Counter(one.model_id[-ID_CHARS:] for one in models)
    ordered = {order.job_id[:ID_CHARS] for order in journal.erasures}
    verdict.doubled += [f"{n} models are of erasure {one}" for one, n in count.items() if n > 1]
    verdict.doubled += [f"nobody ordered model {one}" for one in count.keys() - ordered]
