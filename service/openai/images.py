"""/v1/images/generations: pictures for clients of OpenAI's Images API."""

import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from core.jobs import Job
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import Delivery
from service.headers import IdempotencyKey
from service.linking import described_event
from service.metering import metered
from service.openai.bodies import ImageData, ImagesRequest, ImagesResponse, shown
from service.openai.streaming import EVENTS, stream
from service.problems import refusals
from service.sittings import pictures, sit
from service.wiring import InParts, Parts

router = APIRouter(prefix="/images", tags=["openai"], dependencies=[may("generate")])

EXAMPLES = {
    "smallest": {"summary": "A prompt is enough", "value": {"prompt": "a red apple"}},
    "as clients send it": {
        "summary": "With a model's customary name",
        "value": {
            "model": "gpt-image-1",
            "prompt": "a red apple",
            "n": 1,
            "size": "1024x1024",
            "response_format": "b64_json",
        },
    },
}
ImagesBody = Annotated[ImagesRequest, Body(openapi_examples=EXAMPLES)]


async def _one_stream(body: ImagesBody, parts: InParts, caller: InCaller) -> AsyncIterator[None]:
    """Counts the answer among the tenant's streams, if it is to be one, until it has been sent."""
    with parts.streams.one_more(caller.tenant) if body.stream else nullcontext():
        yield


@router.post(
    "/generations",
    response_model=ImagesResponse,
    dependencies=[metered(), Depends(require_json), Depends(_one_stream)],
    responses={
        200: {
            "description": "The pictures; with `stream`, events",
            "content": {"text/event-stream": {"schema": described_event(EVENTS)}},
        },
        **refusals(400, 404, 409, 413, 415, 422, 429, 503, 504),
    },
)
async def create_images(
    body: ImagesBody,
    parts: InParts,
    caller: InCaller,
    request: Request,
    idempotency_key: IdempotencyKey = "",
) -> ImagesResponse | Response:
    """Draw, and answer with the pictures; the generation ends if the client goes away."""
    spec = await run_in_threadpool(body.spec, parts.registry)
    delivery = Delivery(deadline_s=body.deadline_s)
    if body.stream:
        # Admitted before the first event, so that a refusal has its status.
        job = await run_in_threadpool(
            parts.desk.admit_generation,
            *(spec, caller),
            delivery=delivery,
            idempotency_key=idempotency_key,
        )
        return StreamingResponse(
            stream(parts, job, kept=bool(idempotency_key)), media_type="text/event-stream"
        )
    job = await sit(*(parts, caller, spec, request), delivery=delivery, key=idempotency_key)
    return await run_in_threadpool(_response, parts, job, body.response_format, request)


def _response(
    parts: Parts, job: Job, response_format: str | None, request: Request
) -> ImagesResponse:
    data = [
        ImageData.of(
            drawn,
            str(request.url_for("read_image", generation_id=job.id, index=drawn.index)),
            response_format,
        )
        for drawn in pictures(parts, job)
    ]
    return ImagesResponse(
        created=int(job.finished_at or time.time()),
        model=job.spec.model if job.spec.kind == "generation" else "",
        data=data,
        **shown(job).model_dump(),
    )
