"""/queue: what runs, what waits, and a button to cancel each."""

from fastapi import APIRouter, Depends, Request, Response

from core.callers import Caller
from service.callers import InCaller, known, may
from service.origins import refuse_other_sites
from service.routes import erasures, evaluations, generations
from service.web.entrance import is_part
from service.web.pages import PageRoute, go, page
from service.wiring import InParts, Parts

SHOWN = 25
"""Jobs of each kind."""

router = APIRouter(prefix="/queue", route_class=PageRoute, include_in_schema=False)


@router.get("", dependencies=[known()])
def show_queue(request: Request, parts: InParts, caller: InCaller) -> Response:
    return _queue(request, parts, caller)


@router.post(
    "/generations/{job_id}/cancellation",
    dependencies=[may("generate"), Depends(refuse_other_sites)],
)
def cancel_generation(request: Request, job_id: str, parts: InParts, caller: InCaller) -> Response:
    generations.cancel_generation(job_id, parts, caller)
    return _queue(request, parts, caller)


@router.post(
    "/erasures/{job_id}/cancellation",
    dependencies=[may("erase"), Depends(refuse_other_sites)],
)
def cancel_erasure(request: Request, job_id: str, parts: InParts, caller: InCaller) -> Response:
    erasures.cancel_erasure(job_id, parts, caller)
    return _queue(request, parts, caller)


@router.post(
    "/evaluations/{job_id}/cancellation",
    dependencies=[may("erase"), Depends(refuse_other_sites)],
)
def cancel_evaluation(request: Request, job_id: str, parts: InParts, caller: InCaller) -> Response:
    evaluations.cancel_evaluation(job_id, parts, caller)
    return _queue(request, parts, caller)


def _queue(request: Request, parts: Parts, caller: Caller) -> Response:
    if request.method == "POST" and not is_part(request.headers):
        return go(request, "/queue")
    kinds = [parts.generations] if caller.may("generate") else []
    if caller.may("erase"):
        kinds += [parts.erasures, parts.evaluations]
    return page(
        request,
        "_queue" if is_part(request.headers) else "queue",
        kinds={one.noun: one.unfinished(caller, limit=SHOWN) for one in kinds},
        full=SHOWN,
        missing=parts.readiness.missing(),
    )
