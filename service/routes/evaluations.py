"""/v1/evaluations: have an erased model measured and attacked; the result is a signed report."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Request, Response

from core.evaluation import EvaluationSpec
from core.jobs import Job, JobState
from core.progress import Progress
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import EvaluationRequest
from service.events import DESCRIBED, events_of, streamed
from service.headers import After, IdempotencyKey, LastEventId, Limit, Unfinished
from service.linking import job_links
from service.lists import Page, Resource
from service.metering import metered
from service.problems import refusals
from service.webhooks.telling import Told
from service.wiring import InParts

router = APIRouter(prefix="/evaluations", tags=["evaluations"], dependencies=[may("erase")])

POLL_AFTER_S = "5"
EXAMPLES = {
    "everything": {
        "summary": "All suites of the base model, with the test prompts",
        "value": {"model": "default", "target": ["weapon"]},
    },
    "attacked": {
        "summary": "Two suites, and an attack",
        "value": {
            "model": "default",
            "target": ["weapon"],
            "suites": ["explicit", "ordinary"],
            "attacks": [{"name": "ring-a-bell", "budget": 20, "prompts": 8, "seed": 0}],
        },
    },
}
EvaluationBody = Annotated[EvaluationRequest, Body(openapi_examples=EXAMPLES)]


class Evaluation(Resource):
    object: Literal["evaluation"] = "evaluation"
    state: JobState
    ahead: int | None
    """How many wait before it in the queue; null in lists, and when it does not wait."""
    cancelling: bool
    """Cancelled while it ran; its process stops soon."""
    model: str
    report: str | None
    """Where `report.json` is, once there is one; `report.html` lies beside it."""
    created_at: float
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
    request: EvaluationSpec
    reason: str | None
    """Why it failed."""

    @classmethod
    def of(cls, job: Job, *, ahead: int | None = None) -> "Evaluation":
        assert isinstance(job.spec, EvaluationSpec)
        done = job.evaluation
        return cls(
            **job.model_dump(include=set(cls.model_fields) & set(Job.model_fields)),
            late=job.late,
            told=Told.of(job),
            ahead=ahead,
            model=job.spec.model,
            report=f"/v1/models/{done.model}/reports/{done.report}/report.json" if done else None,
            request=job.spec,
        )


@router.post(
    "",
    status_code=202,
    dependencies=[metered(), Depends(require_json)],
    responses={202: job_links("evaluation"), **refusals(400, 404, 409, 413, 415, 422, 429, 503)},
)
def create_evaluation(
    body: EvaluationBody,
    parts: InParts,
    caller: InCaller,
    response: Response,
    idempotency_key: IdempotencyKey = "",
) -> Evaluation:
    """Queue an evaluation. `Location` says where to poll, `Retry-After` when."""
    job = parts.desk.admit_evaluation(
        body.spec, caller, delivery=body, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/v1/evaluations/{job.id}"
    response.headers["Retry-After"] = POLL_AFTER_S
    return Evaluation.of(job)


@router.get("", responses=refusals(404, 422, 503))
def list_evaluations(
    parts: InParts,
    caller: InCaller,
    limit: Limit = 20,
    after: After = None,
    unfinished: Unfinished = False,
) -> Page[Evaluation]:
    """Evaluations, newest first; or those that run, then those that wait, in their order."""
    jobs, has_more = parts.evaluations.page(
        caller, limit=limit, after=after, unfinished=unfinished
    )
    return Page.of([Evaluation.of(job) for job in jobs], has_more=has_more)


@router.get("/{evaluation_id}", responses=refusals(404, 410, 503))
def read_evaluation(evaluation_id: str, parts: InParts, caller: InCaller) -> Evaluation:
    job = parts.evaluations.get(evaluation_id, caller)
    return Evaluation.of(job, ahead=parts.evaluations.ahead(job))


@router.get(
    "/{evaluation_id}/events",
    response_class=Response,
    dependencies=[streamed()],
    responses={**DESCRIBED, **refusals(404, 410, 422, 429, 503)},
)
async def follow_evaluation(
    evaluation_id: str,
    request: Request,
    parts: InParts,
    caller: InCaller,
    last_event_id: LastEventId = "",
) -> Response:
    """Everything that happens to it, as server-sent events, until it has ended."""
    return await events_of(
        evaluation_id,
        request,
        parts,
        caller,
        parts.evaluations,
        Evaluation.of,
        after=last_event_id,
    )


@router.delete("/{evaluation_id}", responses=refusals(404, 410, 409, 503))
def cancel_evaluation(evaluation_id: str, parts: InParts, caller: InCaller) -> Evaluation:
    """Cancel: a queued one ends now, a running one soon (`cancelling`)."""
    return Evaluation.of(parts.evaluations.cancel(evaluation_id, caller))


@router.post(
    "/{evaluation_id}/retry",
    status_code=202,
    dependencies=[metered()],
    responses=refusals(404, 410, 409, 429, 503),
)
def retry_evaluation(evaluation_id: str, parts: InParts, caller: InCaller) -> Evaluation:
    """Try a failed one again, with as many attempts as it had; its deadline is dropped."""
    return Evaluation.of(parts.evaluations.retry(evaluation_id, caller))
