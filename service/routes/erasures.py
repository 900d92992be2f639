"""/v1/erasures: have concepts erased from a base model; the result is a candidate model."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Response

from core.jobs import Job, JobState
from core.progress import Progress
from core.specs import ErasureSpec
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import ErasureRequest
from service.events import DESCRIBED, events_of, streamed
from service.headers import After, IdempotencyKey, LastEventId, Limit
from service.linking import job_links
from service.lists import Page, Resource
from service.metering import metered
from service.problems import refusals
from service.webhooks.telling import Told
from service.wiring import InParts

router = APIRouter(prefix="/erasures", tags=["erasures"], dependencies=[may("erase")])

POLL_AFTER_S = "5"
EXAMPLES = {
    "preset": {
        "summary": "A list of concepts that ships with the service",
        "value": {"base_model": "default", "preset": "weapons"},
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
    reason: str | None
    """Why it failed."""

    @classmethod
    def of(cls, job: Job, *, ahead: int | None = None) -> "Erasure":
        assert isinstance(job.spec, ErasureSpec)
        return cls(
            **job.model_dump(include=set(cls.model_fields) & set(Job.model_fields)),
            late=job.late,
            told=Told.of(job),
            ahead=ahead,
            base_model=job.spec.base_model,
            erased_model=job.erasure.erased_model if job.erasure else None,
            request=job.spec,
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
    parts: InParts, caller: InCaller, limit: Limit = 20, after: After = None
) -> Page[Erasure]:
    """Erasures, newest first."""
    jobs, has_more = parts.erasures.page(caller, limit=limit, after=after)
    return Page.of([Erasure.of(job) for job in jobs], has_more=has_more)


@router.get("/{erasure_id}", responses=refusals(404, 410, 503))
def read_erasure(erasure_id: str, parts: InParts, caller: InCaller) -> Erasure:
    job = parts.erasures.get(erasure_id, caller)
    return Erasure.of(job, ahead=parts.erasures.ahead(job))


@router.get(
    "/{erasure_id}/events",
    response_class=Response,
    dependencies=[streamed()],
    responses={**DESCRIBED, **refusals(404, 410, 422, 429, 503)},
)
async def follow_erasure(
    erasure_id: str, parts: InParts, caller: InCaller, last_event_id: LastEventId = ""
) -> Response:
    """Everything that happens to it, as server-sent events, until it has ended."""
    return await events_of(
        erasure_id, parts, caller, parts.erasures, Erasure.of, after=last_event_id
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
