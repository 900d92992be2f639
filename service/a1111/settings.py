"""/sdapi/v1: what A1111's clients ask before they draw."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends

from service.a1111.bodies import ModelEntry, Options, Sampler, Scheduler, ScriptList
from service.a1111.choices import ModelChoices
from service.a1111.samplers import OWN, SAMPLERS, SCHEDULES
from service.bodies import require_json
from service.callers import InCaller, may
from service.problems import refusals
from service.wiring import InParts

router = APIRouter(tags=["a1111"], dependencies=[may("generate")])


OptionsBody = Annotated[
    Options,
    Body(openapi_examples={"a model": {"value": {"sd_model_checkpoint": "emoji"}}}),
]


@router.get("/options", responses=refusals(404, 409))
def read_options(parts: InParts, caller: InCaller) -> Options:
    """The model that txt2img draws with unless it names another."""
    return Options(
        sd_model_checkpoint=parts.registry.resolve(ModelChoices(parts.client).of(caller))
    )


@router.post(
    "/options",
    dependencies=[Depends(require_json)],
    responses=refusals(400, 404, 409, 413, 415, 422),
)
def choose_options(body: OptionsBody, parts: InParts, caller: InCaller) -> dict[str, str]:
    """Choose that model, for all A1111 clients of your tenant; anything else is ignored."""
    if body.sd_model_checkpoint is not None:
        model = parts.registry.served(parts.registry.known_as(body.sd_model_checkpoint))
        ModelChoices(parts.client).choose(caller, model.id)
    return {}


@router.get("/sd-models", responses=refusals())
def list_sd_models(parts: InParts) -> list[ModelEntry]:
    """The models that are served."""
    served = filter(parts.registry.serving.allows, parts.registry.all())
    return [ModelEntry.of(manifest) for manifest in served]


@router.get("/samplers", responses=refusals())
def list_samplers() -> list[Sampler]:
    return [Sampler(name=name) for name in (OWN, *SAMPLERS)]


@router.get("/schedulers", responses=refusals())
def list_schedulers() -> list[Scheduler]:
    return [Scheduler(name=name.lower(), label=name) for name in SCHEDULES]


@router.get("/scripts", responses=refusals())
def list_scripts() -> ScriptList:
    return ScriptList()
