"""`stream`: server-sent events as OpenAI's clients read them."""

import time
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool

from core.errors import AppError, StillDrawing
from core.jobs import Job
from service.openai.bodies import CompletedEvent, shown
from service.problems import describe
from service.sittings import abandon, pictures
from service.waiting import ended
from service.wiring import Parts

ALIVE_EVERY_S = 5.0
KEEPALIVE = ": keepalive\n\n"
PATH = "/v1/images/generations"


async def stream(parts: Parts, job: Job, *, kept: bool) -> AsyncIterator[str]:
    """An event for each picture, or one with the error.

    Args:
        kept: do not cancel the generation when the client goes away.
    """
    finished = False
    try:
        left_s = parts.longest_sitting_s
        while not job.state.ended and left_s > 0 and not parts.closing.is_set():
            yield KEEPALIVE
            slice_s = min(ALIVE_EVERY_S, left_s)
            job = await ended(parts.jobs, job, within_s=slice_s, closing=parts.closing)
            left_s -= slice_s
        finished = True
        try:
            if not job.state.ended:
                raise StillDrawing(f"the generation goes on at /v1/generations/{job.id}", job.id)
            drawn = await run_in_threadpool(pictures, parts, job)
        except AppError as error:
            yield f"event: error\ndata: {describe(PATH, error)}\n\n"
            return
        for one in drawn:
            if one.base64 is None:
                continue
            event = CompletedEvent(
                b64_json=one.base64,
                created_at=int(job.finished_at or time.time()),
                seed=one.seed,
                **shown(job).model_dump(),
            )
            yield f"event: {event.type}\ndata: {event.model_dump_json()}\n\n"
    finally:
        if not finished and not kept:
            abandon(parts, job)
