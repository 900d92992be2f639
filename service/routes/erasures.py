"""/v1/erasures: have concepts erased from a base model; the result is a candidate model."""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel

from core.errors import ImageNotFound
from core.jobs import Job, JobState
from core.progress import Progress
from core.samples import Samples
from core.specs import ErasureSpec
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import ErasureRequest
from service.events import DESCRIBED, events_of, streamed
from service.headers import After, IdempotencyKey, LastEventId, Limit, Unfinished
from service.linking import job_links
from service.lists import Page, Resource
from service.metering import metered
from service.problems import refusals
from service.samples import seen_samples
from service.webhooks.telling import Told
from service.wiring import InParts

router = APIRouter(prefix="/erasures", tags=["erasures"], dependencies=[may("erase")])

POLL_AFTER_S = "5"
EXAMPLES = {
    "preset": {
        "summary": "A list of concepts that ships with the service",
        "value": {"base_model": "default", "preset": "weapons"},
    },
    "several presets": {
        "summary": "Several lists, and a concept of your own beside them",
        "value": {
            "base_model": "default",
            "preset": ["alcohol-tobacco", "drugs"],
            "concepts": [{"name": "hookah", "replacement": "teapot"}],
        },
    },
    "own concepts": {
        "summary": "Concepts of your own, and neighbours to protect",
        "value": {
            "base_model": "default",
            "concepts": [
                {
                    "name": "dagger",
                    "synonyms": ["knife", "blade"],
                    "replacement": "spoon",
                    "kind": "object",
                }
            ],
            "textual": {"preserve": 0.2, "protect": ["fork", "scissors"]},
        },
    },
}
ErasureBody = Annotated[ErasureRequest, Body(openapi_examples=EXAMPLES)]


class ErasureSample(BaseModel):
    """A small picture that the erasure drew on its way."""

    after: str
    """`base`: by the model before anything was erased; `stage-1`; `step-N` of stage 2."""
    prompt: str
    seed: int
    url: str

    @classmethod
    def of(cls, job_id: str, rounds: Sequence[Samples]) -> "list[ErasureSample]":
        return [
            cls(
                after=one.after,
                prompt=sample.prompt,
                seed=sample.seed,
                url=f"/v1/erasures/{job_id}/samples/{one.after}/{number}",
            )
            for one in rounds
            for number, sample in enumerate(one.pictures)
        ]


class Erasure(Resource):
    object: Literal["erasure"] = "erasure"
    state: JobState
    ahead: int | None
    """How many wait before it in the queue; null in lists, and when it does not wait."""
    cancelling: bool
    """Cancelled while it ran; its trainer stops soon."""
    base_model: str
    erased_model: str | None
    """The id of the result, a candidate until it is promoted."""
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
    request: ErasureSpec
    samples: list[ErasureSample] | None
    """What the base draws, and then the same prompts as they are drawn by now. Null in lists,
    and in the answers to POST and DELETE; empty where there are none."""
    reason: str | None
    """Why it failed."""

    @classmethod
    def of(
        cls, job: Job, *, ahead: int | None = None, samples: Sequence[Samples] | None = None
    ) -> "Erasure":
        assert isinstance(job.spec, ErasureSpec)
        return cls(
            **job.model_dump(include=set(cls.model_fields) & set(Job.model_fields)),
            late=job.late,
            told=Told.of(job),
            ahead=ahead,
            base_model=job.spec.base_model,
            erased_model=job.erasure.erased_model if job.erasure else None,
            request=job.spec,
            samples=None if samples is None else ErasureSample.of(job.id, samples),
        )


@router.post(
    "",
    status_code=202,
    dependencies=[metered(), Depends(require_json)],
    responses={202: job_links("erasure"), **refusals(400, 404, 409, 413, 415, 422, 429, 503)},
)
def create_erasure(
    body: ErasureBody,
    parts: InParts,
    caller: InCaller,
    response: Response,
    idempotency_key: IdempotencyKey = "",
) -> Erasure:
    """Queue an erasure. `Location` says where to poll, `Retry-After` when."""
    job = parts.desk.admit_erasure(
        body.spec, caller, delivery=body, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/v1/erasures/{job.id}"
    response.headers["Retry-After"] = POLL_AFTER_S
    return Erasure.of(job)


@router.get("", responses=refusals(404, 422, 503))
def list_erasures(
    parts: InParts,
    caller: InCaller,
    limit: Limit = 20,
    after: After = None,
    unfinished: Unfinished = False,
) -> Page[Erasure]:
    """Erasures, newest first; or those that run, then those that wait, in their order."""
    jobs, has_more = parts.erasures.page(caller, limit=limit, after=after, unfinished=unfinished)
    return Page.of([Erasure.of(job) for job in jobs], has_more=has_more)


@router.get("/{erasure_id}", responses=refusals(404, 410, 503))
def read_erasure(erasure_id: str, parts: InParts, caller: InCaller) -> Erasure:
    job = parts.erasures.get(erasure_id, caller)
    return Erasure.of(job, ahead=parts.erasures.ahead(job), samples=seen_samples(job, parts))


@router.get(
    "/{erasure_id}/samples/{after}/{number}",
    response_class=Response,
    responses={
        200: {"description": "The picture", "content": {"image/jpeg": {}}},
        **refusals(404, 410, 422, 503),
    },
)
def read_sample(
    erasure_id: str, after: str, number: int, parts: InParts, caller: InCaller
) -> Response:
    """One of an erasure's samples: of its base or of the latest; the others are gone."""
    job = parts.erasures.get(erasure_id, caller)
    for one in seen_samples(job, parts):
        if one.after == after and 0 <= number < len(one.pictures):
            data = base64.b64decode(one.pictures[number].jpeg)
            return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})
    raise ImageNotFound(
        f"erasure {job.id} shows no such sample now; its `samples` say which there are"
    )


@router.get(
    "/{erasure_id}/events",
    response_class=Response,
    dependencies=[streamed()],
    responses={**DESCRIBED, **refusals(404, 410, 422, 429, 503)},
)
async def follow_erasure(
    erasure_id: str,
    request: Request,
    parts: InParts,
    caller: InCaller,
    last_event_id: LastEventId = "",
) -> Response:
    """Everything that happens to it, as server-sent events, until it has ended."""

    def shown(job: Job) -> Erasure:
        return Erasure.of(job, samples=seen_samples(job, parts))

    return await events_of(
        erasure_id, request, parts, caller, parts.erasures, shown, after=last_event_id
    )


@router.delete("/{erasure_id}", responses=refusals(404, 410, 409, 503))
def cancel_erasure(erasure_id: str, parts: InParts, caller: InCaller) -> Erasure:
    """Cancel: a queued one ends now, a running one soon (`cancelling`)."""
    return Erasure.of(parts.erasures.cancel(erasure_id, caller))


@router.post(
    "/{erasure_id}/retry",
    status_code=202,
    dependencies=[metered()],
    responses=refusals(404, 410, 409, 429, 503),
)
def retry_erasure(erasure_id: str, parts: InParts, caller: InCaller) -> Erasure:
    """Try a failed one again, with as many attempts as it had; its deadline is dropped."""
    return Erasure.of(parts.erasures.retry(erasure_id, caller))
