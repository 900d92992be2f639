"""For clients that know only requests which are answered with the picture."""

import asyncio
import base64
from dataclasses import dataclass

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from core.callers import Caller
from core.errors import (
    DrawingCancelled,
    DrawingFailed,
    JobEnded,
    JobNotFound,
    PicturesBlocked,
    StillDrawing,
    StoreUnavailable,
)
from core.findings import Finding, FinishReason
from core.jobs import Job
from core.specs import GenerationSpec
from service.delivery import NO_WISHES, Delivery
from service.waiting import ended
from service.wiring import Parts


@dataclass(frozen=True)
class Drawn:
    """A picture, or why there is none."""

    index: int
    seed: int
    finish_reason: FinishReason
    finding: Finding | None
    data: bytes | None

    @property
    def base64(self) -> str | None:
        return None if self.data is None else base64.b64encode(self.data).decode()


async def sit(
    parts: Parts,
    caller: Caller,
    spec: GenerationSpec,
    request: Request,
    *,
    delivery: Delivery = NO_WISHES,
    key: str = "",
) -> Job:
    """Queue a generation and wait for its end; it is cancelled when the client goes away.

    Args:
        key: an idempotency key; what carries one goes on without its client.

    Raises:
        StillDrawing: it takes too long; the generation goes on.
        What AdmissionDesk.admit_generation raises.
    """
    job = await run_in_threadpool(
        parts.desk.admit_generation, spec, caller, delivery=delivery, idempotency_key=key
    )
    gone = asyncio.ensure_future(_gone(request))
    try:
        job = await ended(
            *(parts.jobs, parts.endings, job),
            within_s=parts.longest_sitting_s,
            closing=parts.closing,
            gone=None if key else gone,
        )
        if not key and not job.state.ended and gone.done():
            await run_in_threadpool(abandon, parts, job)
    finally:
        gone.cancel()
    if not job.state.ended:
        raise StillDrawing(
            f"it is not drawn yet; the generation goes on at /v1/generations/{job.id}", job.id
        )
    return job


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection; its request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def pictures(parts: Parts, job: Job) -> list[Drawn]:
    """What became of each picture of a generation that has ended: at least one is there.

    Raises:
        PicturesBlocked, DrawingCancelled, DrawingFailed: none is.
    """
    drawn = [
        Drawn(
            index,
            record.seed,
            record.finish_reason,
            record.finding,
            None if record.key is None else parts.storage.get(record.key),
        )
        for index, record in enumerate(job.images)
    ]
    if any(one.data is not None for one in drawn):
        return drawn
    for one in drawn:
        if one.finish_reason == "content_filtered" and one.finding is not None:
            what = one.finding.category or one.finding.detector
            raise PicturesBlocked(
                f"the picture was drawn and withheld: the policy objects to {what}", one.finding
            )
    if any(one.finish_reason == "cancelled" for one in drawn):
        raise DrawingCancelled(f"generation {job.id} was cancelled")
    raise DrawingFailed(f"generation {job.id} failed: {job.reason or 'no picture was drawn'}")


def abandon(parts: Parts, job: Job) -> None:
    """Cancel a generation that nobody waits for any longer."""
    try:
        parts.jobs.cancel(job.id)
    except (JobEnded, JobNotFound, StoreUnavailable):
        return  # it has ended by itself, or cannot be reached; nobody is there to be told
