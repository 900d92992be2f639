"""/: one prompt drawn by several models from the same seed, side by side, as it comes to be.

Each picture asks for itself again until it is there. That is a request of two reads twice a second
and picture; a stream of events for each would use up the six connections of a browser.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import RedirectResponse

from core.errors import AppError, Invalid
from core.jobs import Job
from core.specs import GenerationSpec
from service.admission import SEEDS
from service.callers import InCaller, known, may
from service.metering import metered, spend
from service.origins import refuse_other_sites
from service.routes import generations, models
from service.routes.generations import Generation
from service.sittings import abandon
from service.web.entrance import is_part
from service.web.forms import Form, number
from service.web.pages import PageRoute, page
from service.wiring import InParts, Parts

MAX_COMPARED = 6
PREVIEWS = 6

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Jobs = Annotated[str, Query(max_length=MAX_COMPARED * 33)]
"""The ids of generations to show, parted by dots."""


@dataclass(frozen=True)
class Shown:
    """A generation as the page shows it."""

    generation: Generation
    erased: bool
    preview: str | None = None
    """A JPEG in base64 of what it will look like, while it is drawn."""


@router.get("/", dependencies=[known()])
def show_playground(
    request: Request, parts: InParts, caller: InCaller, jobs: Jobs = ""
) -> Response:
    """With the generations of an earlier comparison, if the address names them."""
    drawn = [
        generations.read_generation(job_id, parts, caller) for job_id in jobs.split(".") if job_id
    ]
    served = [model for model in models.list_models(parts).data if model.served]
    return page(
        request,
        "playground",
        served=served,
        chosen={one.model for one in drawn} or _newest(served),
        asked=drawn[0].request if drawn else GenerationSpec(prompt="a sharp dagger"),
        shown=[_shown(one, parts) for one in drawn],
    )


@router.post(
    "/comparisons", dependencies=[may("generate"), metered(), Depends(refuse_other_sites)]
)
def compare(request: Request, parts: InParts, caller: InCaller, form: Form) -> Response:
    """Queue one generation for each model, all of one seed; if one is refused, none is drawn."""
    names = form.getlist("models")
    if not 1 <= len(names) <= MAX_COMPARED:
        raise Invalid(f"models: choose from 1 to {MAX_COMPARED} of them")
    seed = form.get("seed", "")
    asked = GenerationSpec.model_validate(
        {
            "prompt": form.get("prompt", ""),
            "negative_prompt": form.get("negative_prompt", ""),
            "num_inference_steps": number(form.get("steps", "")),
            "guidance_scale": number(form.get("guidance", "")),
            "seed": number(seed) if seed else secrets.randbelow(SEEDS),
            "previews": PREVIEWS,
        }
    )
    queued: list[Job] = []
    try:
        for place, name in enumerate(names):
            if place > 0:  # the dependency counted the first
                spend(request, caller, parts)
            spec = GenerationSpec.model_validate(asked.model_dump() | {"model": name})
            queued.append(parts.desk.admit_generation(spec, caller))
    except AppError:
        for job in queued:
            abandon(parts, job)
        raise
    address = f"/?jobs={'.'.join(job.id for job in queued)}"
    if not is_part(request.headers):
        return RedirectResponse(address, 303)
    shown = [_shown(Generation.of(job), parts) for job in queued]
    response = page(request, "_comparison", shown=shown)
    response.headers["HX-Push-Url"] = address
    return response


@router.get("/comparisons/{generation_id}", dependencies=[may("generate")])
def show_picture(
    request: Request, generation_id: str, parts: InParts, caller: InCaller
) -> Response:
    generation = generations.read_generation(generation_id, parts, caller)
    return page(request, "_picture", one=_shown(generation, parts))


@router.post(
    "/comparisons/{generation_id}/cancellation",
    dependencies=[may("generate"), Depends(refuse_other_sites)],
)
def cancel_picture(
    request: Request, generation_id: str, parts: InParts, caller: InCaller, jobs: Jobs = ""
) -> Response:
    """
    Args:
        jobs: what to show again where there are no scripts.
    """
    generation = generations.cancel_generation(generation_id, parts, caller)
    if not is_part(request.headers):
        return RedirectResponse(f"/?{urlencode({'jobs': jobs or generation_id})}", 303)
    return page(request, "_picture", one=_shown(generation, parts))


def _shown(generation: Generation, parts: Parts) -> Shown:
    previews = parts.jobs.news.previews(generation.id) if generation.state == "running" else []
    try:
        erased = parts.registry.get(generation.model).kind == "erased"
    except AppError:
        erased = False  # the model was taken away since
    return Shown(generation, erased, previews[0].jpeg if previews else None)


def _newest(served: Sequence[models.Model]) -> set[str]:
    """The newest base model, and the newest erased one."""
    return set({model.kind: model.id for model in served}.values())
