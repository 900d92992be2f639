"""/v1/generations: ask for pictures, poll until they are drawn, fetch them."""

import hashlib
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from core.errors import ImageNotFound, ImageNotReady, ImageWithheld
from core.findings import Finding, FinishReason
from core.jobs import Job, JobState
from core.progress import Progress
from core.specs import GenerationSpec
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import GenerationRequest
from service.events import DESCRIBED, events_of, streamed
from service.headers import After, IdempotencyKey, LastEventId, Limit, Prefer, Unfinished
from service.linking import job_links
from service.lists import Page, Resource
from service.metering import metered
from service.problems import refusals
from service.waiting import ended, wait_s
from service.webhooks.telling import Told
from service.wiring import InParts

router = APIRouter(prefix="/generations", tags=["generations"], dependencies=[may("generate")])

POLL_AFTER_S = "1"
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
EXAMPLES = {
    "smallest": {"summary": "A prompt is enough", "value": {"prompt": "a red apple"}},
    "all": {
        "summary": "Every choice made",
        "value": {
            "model": "default",
            "prompt": "a red apple",
            "negative_prompt": "blurry",
            "num_inference_steps": 20,
            "guidance_scale": 5.0,
            "seed": 7,
            "n": 2,
        },
    },
}
GenerationBody = Annotated[GenerationRequest, Body(openapi_examples=EXAMPLES)]


class GeneratedImage(BaseModel):
    index: int
    url: str | None
    """Null unless `finish_reason` is `stop`: there is nothing to see then."""
    seed: int
    """Ask for this seed and n = 1 to draw this picture again."""
    finish_reason: FinishReason
    finding: Finding | None
    """What a detector objects to, or the detector that could not run."""
    reason: str | None
    """What went wrong, for `error`."""


class Generation(Resource):
    object: Literal["generation"] = "generation"
    state: JobState
    ahead: int | None
    """How many wait before it in the queue; null in lists, and when it does not wait."""
    cancelling: bool
    """Cancelled while it ran; its worker stops at the next step."""
    model: str
    created_at: float
    """Unix time in seconds, as all times here."""
    started_at: float | None
    finished_at: float | None
    deadline: float | None
    """When it is given up, if it has not ended."""
    late: bool
    """It failed because its deadline passed."""
    attempt: int
    progress: Progress | None
    told: Told | None
    """How far the telling of its end is; null where no webhook was asked for."""
    request: GenerationSpec
    """As admitted: the model's id, the size and the seed are filled in."""
    images: list[GeneratedImage]
    reason: str | None
    """Why it failed."""

    @classmethod
    def of(cls, job: Job, *, ahead: int | None = None) -> "Generation":
        assert isinstance(job.spec, GenerationSpec)
        return cls(
            **job.model_dump(include=set(cls.model_fields) & set(Job.model_fields)),
            late=job.late,
            told=Told.of(job),
            ahead=ahead,
            model=job.spec.model,
            request=job.spec,
            images=[
                GeneratedImage(
                    index=index,
                    url=record.key and f"/v1/generations/{job.id}/images/{index}",
                    **record.model_dump(exclude={"key"}),
                )
                for index, record in enumerate(job.images)
            ],
        )


@router.post(
    "",
    status_code=202,
    dependencies=[metered(), Depends(require_json)],
    responses={
        200: {
            "model": Generation,
            "description": "`Prefer: wait=N`, and it ended in time",
            **job_links("generation"),
        },
        202: job_links("generation"),
        **refusals(400, 404, 409, 413, 415, 422, 429, 503),
    },
)
async def create_generation(
    body: GenerationBody,
    parts: InParts,
    caller: InCaller,
    response: Response,
    idempotency_key: IdempotencyKey = "",
    prefer: Prefer = None,
) -> Generation:
    """Queue pictures of one prompt. `Location` says where to poll, `Retry-After` when."""
    job = await run_in_threadpool(
        parts.desk.admit_generation,
        body.spec,
        caller,
        delivery=body,
        idempotency_key=idempotency_key,
    )
    if within_s := wait_s(prefer):
        response.headers["Preference-Applied"] = f"wait={within_s}"
        job = await ended(parts.jobs, parts.endings, job, within_s=within_s, closing=parts.closing)
    response.headers["Location"] = f"/v1/generations/{job.id}"
    if within_s and job.state.ended:
        response.status_code = 200
    else:
        response.headers["Retry-After"] = POLL_AFTER_S
    return Generation.of(job)


@router.get("", responses=refusals(404, 422, 503))
def list_generations(
    parts: InParts,
    caller: InCaller,
    limit: Limit = 20,
    after: After = None,
    unfinished: Unfinished = False,
) -> Page[Generation]:
    """Generations, newest first; or those that run, then those that wait, in their order."""
    jobs, has_more = parts.generations.page(
        caller, limit=limit, after=after, unfinished=unfinished
    )
    return Page.of([Generation.of(job) for job in jobs], has_more=has_more)


@router.get("/{generation_id}", responses=refusals(404, 410, 503))
def read_generation(generation_id: str, parts: InParts, caller: InCaller) -> Generation:
    job = parts.generations.get(generation_id, caller)
    return Generation.of(job, ahead=parts.generations.ahead(job))


@router.get(
    "/{generation_id}/events",
    response_class=Response,
    dependencies=[streamed()],
    responses={**DESCRIBED, **refusals(404, 410, 422, 429, 503)},
)
async def follow_generation(
    generation_id: str,
    request: Request,
    parts: InParts,
    caller: InCaller,
    last_event_id: LastEventId = "",
) -> Response:
    """Everything that happens to it, as server-sent events, until it has ended."""
    return await events_of(
        generation_id,
        request,
        parts,
        caller,
        parts.generations,
        Generation.of,
        after=last_event_id,
    )


@router.delete("/{generation_id}", responses=refusals(404, 410, 409, 503))
def cancel_generation(generation_id: str, parts: InParts, caller: InCaller) -> Generation:
    """Cancel: a queued one ends now, a running one at its next step (`cancelling`)."""
    return Generation.of(parts.generations.cancel(generation_id, caller))


@router.post(
    "/{generation_id}/retry",
    status_code=202,
    dependencies=[metered()],
    responses=refusals(404, 410, 409, 429, 503),
)
def retry_generation(generation_id: str, parts: InParts, caller: InCaller) -> Generation:
    """Try a failed one again, with as many attempts as it had; its deadline is dropped."""
    return Generation.of(parts.generations.retry(generation_id, caller))


@router.get(
    "/{generation_id}/images/{index}",
    response_class=Response,
    responses={
        200: {
            "description": "The picture",
            "content": {name: {} for name in MEDIA_TYPES.values()},
        },
        304: {"description": "`If-None-Match` named this picture"},
        **refusals(404, 410, 409, 422, 503),
    },
)
def read_image(
    generation_id: str,
    index: int,
    parts: InParts,
    caller: InCaller,
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """One picture, in the format that was asked for.

    It never changes, so it may be cached for as long as you like.
    """
    job = parts.generations.get(generation_id, caller)
    if not job.state.ended:
        raise ImageNotReady(f"generation {job.id} is {job.state}; try again when it has succeeded")
    if not 0 <= index < len(job.images):
        raise ImageNotFound(f"generation {job.id} is of {len(job.images)} pictures, from 0")
    record = job.images[index]
    if record.key is None:
        raise ImageWithheld(
            f"picture {index} of generation {job.id} is not to be seen: {record.finish_reason}"
        )
    data = parts.storage.get(record.key)
    media_type = MEDIA_TYPES[record.key.rpartition(".")[2]]
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    if etag in {known.strip().removeprefix("W/") for known in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
