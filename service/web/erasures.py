"""/erasures: compose an erasure, watch it come to be, and go on to the model that it made."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import ImmutableMultiDict

from core import presets
from core.callers import Caller
from core.specs import STEERING_PRESETS, ErasureSpec
from service.callers import InCaller, may
from service.metering import metered
from service.origins import refuse_other_sites
from service.routes import erasures
from service.samples import compared, seen_samples
from service.web.forms import Form, listed, number
from service.web.pages import PageRoute, go, page
from service.web.watching import trained, watched
from service.wiring import InParts, Parts

LISTED = 20
PROVEN_BY = {"max_asr": "explicit", "min_kept": "ordinary"}
"""Which suites the two thresholds of the form are about; the API knows them all."""

router = APIRouter(
    prefix="/erasures",
    route_class=PageRoute,
    include_in_schema=False,
    dependencies=[may("erase")],
)


@router.get("")
def show_erasures(request: Request, parts: InParts, caller: InCaller) -> Response:
    bases = [model for model in parts.registry.all() if model.kind == "base"]
    earlier = erasures.list_erasures(parts, caller, limit=LISTED)
    return page(
        request,
        "erasures",
        bases=[model.id for model in bases],
        presets=[(name, len(presets.load(name))) for name in presets.names()],
        steering=[*STEERING_PRESETS],
        erasures=earlier.data,
    )


@router.get("/concept")
def add_concept(request: Request) -> Response:
    """Fields for one more concept."""
    return page(request, "_concept")


@router.post("", dependencies=[metered(), Depends(refuse_other_sites)])
def erase(request: Request, parts: InParts, caller: InCaller, form: Form) -> Response:
    spec = ErasureSpec.model_validate(_asked(form))
    job = parts.desk.admit_erasure(spec, caller)
    return go(request, f"/erasures/{job.id}")


@router.get("/{erasure_id}")
def show_erasure(request: Request, erasure_id: str, parts: InParts, caller: InCaller) -> Response:
    return page(request, "erasure", **_shown(erasure_id, parts, caller))


@router.get("/{erasure_id}/state")
def show_state(request: Request, erasure_id: str, parts: InParts, caller: InCaller) -> Response:
    return page(request, "_erasure", **_shown(erasure_id, parts, caller))


@router.post("/{erasure_id}/cancellation", dependencies=[Depends(refuse_other_sites)])
def cancel(request: Request, erasure_id: str, parts: InParts, caller: InCaller) -> Response:
    erasures.cancel_erasure(erasure_id, parts, caller)
    return go(request, f"/erasures/{erasure_id}")


def _shown(erasure_id: str, parts: Parts, caller: Caller) -> dict[str, Any]:
    job = parts.erasures.get(erasure_id, caller)
    erasure = erasures.Erasure.of(job, ahead=parts.erasures.ahead(job))
    seen = watched(parts.jobs.news, erasure.id)
    made = trained(parts.registry, erasure.erased_model) if erasure.erased_model else []
    rounds = seen_samples(job, parts)
    return {
        "erasure": erasure,
        "stages": seen.stages,
        "curves": made or seen.curves,
        "sampled": [one.when for one in rounds],
        "samples": compared(rounds),
    }


def _asked(form: ImmutableMultiDict[str, str]) -> dict[str, Any]:
    """The form's fields as the API takes them; what was left empty is left out."""
    asked: dict[str, Any] = {"base_model": form.get("base_model", "")}
    if chosen := form.getlist("preset"):
        asked["preset"] = chosen
    if concepts := _concepts(form):
        asked["concepts"] = concepts
    if protect := listed(form.get("protect", "")):
        asked["textual"] = {"protect": protect}
    if (steering := form.get("steering", "")) in STEERING_PRESETS:
        asked["steering"] = steering
    elif steering:
        asked["steering"] = {}
    demanded = {
        name: {suite: number(form[name])} for name, suite in PROVEN_BY.items() if form.get(name)
    }
    if demanded:
        asked["promote_if"] = demanded
    return asked


def _concepts(form: ImmutableMultiDict[str, str]) -> list[dict[str, Any]]:
    """One for each group of fields in which something was written."""
    columns = [form.getlist(name) for name in ("name", "replacement", "kind", "synonyms")]
    concepts = []
    for name, replacement, kind, synonyms in zip(*columns, strict=False):
        if not (name or replacement or synonyms):
            continue
        concept: dict[str, Any] = {"name": name, "replacement": replacement, "kind": kind}
        if others := listed(synonyms):
            concept["synonyms"] = others
        concepts.append(concept)
    return concepts
