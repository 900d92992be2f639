"""/models: what each model is and how it was proven; promotion, retirement, and back again."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from core.callers import Caller
from core.evaluation import EvaluationSpec
from core.jobs import Job
from core.manifests import Manifest
from core.registry import DEFAULT
from core.reports import FILENAME, Report
from service.callers import InCaller, known, may
from service.metering import metered
from service.orders import Order, Promotion
from service.origins import refuse_other_sites
from service.routes import aliases, models
from service.routes.aliases import Pointing
from service.routes.generations import Generation
from service.web.forms import Form, number
from service.web.measured import facts
from service.web.pages import PageRoute, go, page
from service.web.watching import trained
from service.wiring import InParts, Parts

LOOKED_THROUGH = 60
"""Generations, newest first, to find pictures of one model among."""
GALLERY = 12

router = APIRouter(prefix="/models", route_class=PageRoute, include_in_schema=False)


@router.get("", dependencies=[known()])
def show_models(request: Request, parts: InParts) -> Response:
    listed = models.list_models(parts)
    newest_first = listed.data[::-1]
    others = [one.id for one in newest_first if one.served and not one.is_default]
    return page(
        request,
        "models",
        models=newest_first,
        untrusted=listed.untrusted,
        default=aliases.Alias.of(DEFAULT, parts),
        others=others,
    )


@router.get("/{model_id}", dependencies=[known()])
def show_model(request: Request, model_id: str, parts: InParts, caller: InCaller) -> Response:
    model = models.read_model(model_id, parts)
    manifest = parts.registry.get(model.id)
    return page(
        request,
        "model",
        model=model,
        certificate=manifest.certificate,
        edit=manifest.edit,
        facts=facts(manifest.edit.figures) if manifest.edit else [],
        missing=parts.registry.serving.missing(manifest),
        report=_newest_report(manifest, parts),
        curves=trained(parts.registry, model.id),
        pictures=_gallery(model.id, parts, caller),
        measuring=_measuring(model.id, parts, caller),
    )


@router.get("/{model_id}/measuring", dependencies=[may("erase")])
def show_measuring(request: Request, model_id: str, parts: InParts, caller: InCaller) -> Response:
    """How far evaluations are; when the last has ended, the page is to show its report."""
    measuring = _measuring(model_id, parts, caller)
    if not measuring:
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    return page(request, "_measuring", model_id=model_id, measuring=measuring)


@router.post("/{model_id}/promotion", dependencies=[may("admin"), Depends(refuse_other_sites)])
def promote(
    request: Request, model_id: str, parts: InParts, caller: InCaller, form: Form
) -> Response:
    order = Promotion(
        reason=form.get("reason", ""), override="override" in form, default="default" in form
    )
    models.promote_model(model_id, parts, caller, order)
    return go(request, f"/models/{model_id}")


@router.post("/{model_id}/retirement", dependencies=[may("admin"), Depends(refuse_other_sites)])
def retire(
    request: Request, model_id: str, parts: InParts, caller: InCaller, form: Form
) -> Response:
    models.retire_model(model_id, parts, caller, Order(reason=form.get("reason", "")))
    return go(request, f"/models/{model_id}")


@router.post("/default", dependencies=[may("admin"), Depends(refuse_other_sites)])
def make_default(request: Request, parts: InParts, caller: InCaller, form: Form) -> Response:
    aliases.point_alias(DEFAULT, Pointing(model=form.get("model", "")), parts, caller)
    return go(request, "/models")


@router.post("/default/rollback", dependencies=[may("admin"), Depends(refuse_other_sites)])
def roll_default_back(request: Request, parts: InParts, caller: InCaller) -> Response:
    aliases.roll_alias_back(DEFAULT, parts, caller)
    return go(request, "/models")


@router.post(
    "/{model_id}/evaluation",
    dependencies=[may("erase"), metered(), Depends(refuse_other_sites)],
)
def measure(
    request: Request, model_id: str, parts: InParts, caller: InCaller, form: Form
) -> Response:
    """Have all suites of the base asked, or the first prompts of each."""
    asked: dict[str, Any] = {"model": model_id}
    if at_most := form.get("at_most"):
        asked["at_most"] = number(at_most)
    parts.desk.admit_evaluation(EvaluationSpec.model_validate(asked), caller)
    return go(request, f"/models/{model_id}")


def _measuring(model_id: str, parts: Parts, caller: Caller) -> list[Job]:
    if not caller.may("erase"):
        return []
    unfinished = parts.evaluations.unfinished(caller, limit=LOOKED_THROUGH)
    return [
        job
        for job in unfinished
        if isinstance(job.spec, EvaluationSpec) and job.spec.model == model_id
    ]


def _newest_report(manifest: Manifest, parts: Parts) -> tuple[str, Report] | None:
    if not manifest.reports:
        return None
    newest = max(manifest.reports, key=lambda name: manifest.reports[name].created_at)
    return newest, Report.parse(parts.registry.reports.file(manifest, newest, FILENAME))


def _gallery(model_id: str, parts: Parts, caller: Caller) -> list[Generation]:
    """The newest pictures that the caller may see."""
    if not caller.may("generate"):
        return []
    jobs, _ = parts.generations.page(caller, limit=LOOKED_THROUGH, after=None)
    drawn = [Generation.of(job) for job in jobs if job.state == "succeeded"]
    return [one for one in drawn if one.model == model_id][:GALLERY]
