"""/hf/models/{id}: one picture, as Hugging Face's InferenceClient asks for it."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from core.picture_files import MEDIA_TYPE
from core.specs import MAX_GUIDANCE_SCALE, MAX_IMAGES, MAX_SEED, MAX_STEPS, GenerationSpec
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import DeadlineS, Delivery
from service.metering import metered
from service.problems import refusals
from service.sittings import pictures, sit
from service.translation import generation_spec
from service.wiring import InParts, Parts

router = APIRouter(prefix="/hf/models", tags=["huggingface"], dependencies=[may("generate")])
EXAMPLES = {
    "smallest": {"summary": "A prompt is enough", "value": {"inputs": "a red apple"}},
    "with parameters": {
        "summary": "Some choices made",
        "value": {"inputs": "a red apple", "parameters": {"seed": 7, "num_inference_steps": 20}},
    },
}
CALLED = {"prompt": "inputs"}


class Parameters(BaseModel):
    """What is not listed is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    negative_prompt: str | None = None
    width: Annotated[int, Field(ge=8, le=99_999)] | None = None
    height: Annotated[int, Field(ge=8, le=99_999)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance_scale: (
        Annotated[float, Field(ge=0, le=MAX_GUIDANCE_SCALE, allow_inf_nan=False)] | None
    ) = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED - MAX_IMAGES)] | None = None
    deadline_s: DeadlineS | None = None
    """`extra_body` of the client puts it here. Give the picture up if it is not drawn in so many
    seconds."""


class Inference(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: str
    parameters: Parameters | None = None


InferenceBody = Annotated[Inference, Body(openapi_examples=EXAMPLES)]


@router.post(
    "/{model_id}",
    response_class=Response,
    dependencies=[metered(), Depends(require_json)],
    responses={
        200: {
            "description": "The picture; `x-seed` and `x-generation` are in the headers",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
        **refusals(400, 404, 409, 413, 415, 422, 429, 503, 504),
    },
)
async def infer(
    model_id: str, body: InferenceBody, parts: InParts, caller: InCaller, request: Request
) -> Response:
    """Draw, and answer with the PNG; the generation ends if the client goes away."""
    spec = await run_in_threadpool(_spec, parts, model_id, body)
    deadline_s = None if body.parameters is None else body.parameters.deadline_s
    job = await sit(parts, caller, spec, request, delivery=Delivery(deadline_s=deadline_s))
    (drawn,) = await run_in_threadpool(pictures, parts, job)
    headers = {"x-seed": str(drawn.seed), "x-generation": job.id}
    return Response(drawn.data, media_type=MEDIA_TYPE["png"], headers=headers)


def _spec(parts: Parts, model_id: str, body: Inference) -> GenerationSpec:
    sent = body.parameters or Parameters()
    fields: dict[str, Any] = sent.model_dump(exclude={"width", "height", "deadline_s"})
    fields |= {"model": parts.registry.known_as(model_id), "prompt": body.inputs}
    if sent.width is None or sent.height is None:
        fields |= {"width": sent.width, "height": sent.height}
        return generation_spec(fields, parts.registry, size=None, called=CALLED)
    size = sent.width, sent.height
    return generation_spec(fields, parts.registry, size=size, called=CALLED)
