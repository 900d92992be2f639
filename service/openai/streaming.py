"""`stream`: server-sent events as OpenAI's clients read them."""

import time
from collections import Counter
from collections.abc import AsyncIterator

from anyio import CancelScope
from fastapi.concurrency import run_in_threadpool

from core.errors import AppError, StillDrawing, StoreUnavailable
from core.jobs import Job
from core.specs import GenerationSpec
from service.openai.bodies import CompletedEvent, PartialEvent, shown
from service.previews import Previews
from service.problems import describe
from service.sittings import abandon, pictures
from service.waiting import ended
from service.wiring import Parts

ALIVE_EVERY_S = 5.0
LOOK_EVERY_S = 0.05
"""At previews: only the latest of each picture is kept."""
KEEPALIVE = ": keepalive\n\n"
PATH = "/v1/images/generations"
EVENTS = ("image_generation.partial_image", "image_generation.completed", "error")


class Partials:
    """Previews of a generation as their events, each once."""

    def __init__(self, parts: Parts, job: Job) -> None:
        assert isinstance(job.spec, GenerationSpec)
        self.wanted = job.spec.previews > 0
        self._previews = Previews(parts.jobs.news, job.id)
        self._first_seed = job.spec.seed or 0
        self._shown = shown(job).model_copy(update={"output_format": "jpeg"})
        self._told: Counter[int] = Counter()

    def events(self) -> list[PartialEvent]:
        """None while Redis is away: a preview is not worth an error."""
        try:
            found = self._previews.unseen() if self.wanted else []
        except StoreUnavailable:
            found = []
        events = []
        for preview in found:
            event = PartialEvent(
                b64_json=preview.jpeg,
                created_at=int(time.time()),
                partial_image_index=self._told[preview.index],
                seed=self._first_seed + preview.index,
                **self._shown.model_dump(),
            )
            self._told[preview.index] += 1
            events.append(event)
        return events


async def stream(parts: Parts, job: Job, *, kept: bool) -> AsyncIterator[str]:
    """Events for the previews that were asked for, then one for each picture, or for the error.

    Args:
        kept: do not cancel the generation when the client goes away.
    """
    finished = False
    partials = Partials(parts, job)
    look_every_s = LOOK_EVERY_S if partials.wanted else ALIVE_EVERY_S
    try:
        left_s, alive_at = parts.longest_sitting_s, 0.0
        while not job.state.ended and left_s > 0 and not parts.closing.is_set():
            if time.monotonic() >= alive_at:
                yield KEEPALIVE
                alive_at = time.monotonic() + ALIVE_EVERY_S
            slice_s = min(look_every_s, left_s)
            job = await ended(
                parts.jobs, parts.endings, job, within_s=slice_s, closing=parts.closing
            )
            left_s -= slice_s
            if partials.wanted:
                for partial in await run_in_threadpool(partials.events):
                    yield _written(partial)
        finished = True
        try:
            if not job.state.ended:
                raise StillDrawing(f"the generation goes on at /v1/generations/{job.id}", job.id)
            drawn = await run_in_threadpool(pictures, parts, job)
        except AppError as error:
            yield f"event: error\ndata: {describe(PATH, error)}\n\n"
            return
        for one in drawn:
            if one.base64 is not None:
                yield _written(
                    CompletedEvent(
                        b64_json=one.base64,
                        created_at=int(job.finished_at or time.time()),
                        seed=one.seed,
                        **shown(job).model_dump(),
                    )
                )
    finally:
        if not finished and not kept:
            # The client that goes away has this cancelled, too; it is to be done all the same.
            with CancelScope(shield=True):
                await run_in_threadpool(abandon, parts, job)


def _written(event: PartialEvent | CompletedEvent) -> str:
    return f"event: {event.type}\ndata: {event.model_dump_json()}\n\n"
