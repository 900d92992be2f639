"""/sdapi/v1/txt2img and what goes with it: progress, interrupt, png-info."""

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request
from fastapi.concurrency import run_in_threadpool

from core.callers import Caller
from core.errors import JobEnded, PictureUnreadable
from core.jobs import Job, JobState
from core.picture_files import read
from service.a1111.bodies import (
    PngInfoAnswer,
    PngInfoRequest,
    ProgressAnswer,
    ProgressState,
    TextToImage,
    TextToImageAnswer,
)
from service.a1111.choices import ModelChoices
from service.bodies import require_json
from service.callers import InCaller, may
from service.delivery import Delivery
from service.metering import metered
from service.origins import refuse_other_sites
from service.problems import refusals
from service.sittings import pictures, sit
from service.wiring import InParts, Parts

PNG_INFO = "/sdapi/v1/png-info"
LOOKED_AT = 20
"""How many of a tenant's newest generations are searched for the one that is drawn."""
router = APIRouter(tags=["a1111"], dependencies=[may("generate")])


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""The smallest of files."""
TextToImageBody = Annotated[
    TextToImage,
    Body(
        openapi_examples={
            "smallest": {"value": {"prompt": "a red apple"}},
            "as clients send it": {
                "value": {
                    "prompt": "a red apple",
                    "steps": 20,
                    "cfg_scale": 5.0,
                    "seed": 7,
                    "width": 64,
                    "height": 64,
                    "override_settings": {"sd_model_checkpoint": "emoji"},
                }
            },
        }
    ),
]
PngInfoBody = Annotated[
    PngInfoRequest, Body(openapi_examples={"a file": {"value": {"image": PIXEL}}})
]


@router.post(
    "/txt2img",
    dependencies=[metered(), Depends(require_json)],
    responses=refusals(400, 404, 409, 413, 415, 422, 429, 503, 504),
)
async def draw_txt2img(
    body: TextToImageBody, parts: InParts, caller: InCaller, request: Request
) -> TextToImageAnswer:
    """Draw, and answer with the pictures; the generation ends if the client goes away."""
    chosen = ModelChoices(parts.client)
    name = body.checkpoint
    if name is None:
        name = await run_in_threadpool(chosen.of, caller)
    model_id = await run_in_threadpool(parts.registry.known_as, name)
    spec = await run_in_threadpool(body.spec, model_id, parts.registry)
    job = await sit(*(parts, caller, spec, request), delivery=Delivery(deadline_s=body.deadline_s))
    return await run_in_threadpool(_answer, parts, job, body)


@router.get("/progress", responses=refusals())
def read_progress(parts: InParts, caller: InCaller) -> ProgressAnswer:
    """How far your newest generation is that has not ended."""
    unfinished = _unfinished(parts, caller)
    if not unfinished:
        state = ProgressState(
            interrupted=False, job="", job_count=0, sampling_step=0, sampling_steps=0
        )
        return ProgressAnswer(progress=0.0, state=state)
    newest = unfinished[0]
    done, total = 0, 0
    if newest.progress is not None:
        done, total = newest.progress.done, newest.progress.total
    return ProgressAnswer(
        progress=done / total if total else 0.01,
        state=ProgressState(
            interrupted=newest.cancelling,
            job=newest.id,
            job_count=len(unfinished),
            sampling_step=done,
            sampling_steps=total,
        ),
    )


@router.post(
    "/interrupt",
    dependencies=[Depends(refuse_other_sites)],
    responses=refusals(400, 403, 413),
)
def interrupt_newest(parts: InParts, caller: InCaller) -> dict[str, str]:
    """Cancel your newest generation that has not ended; DELETE /v1/generations/{id} is exact."""
    for job in _unfinished(parts, caller)[:1]:
        try:
            parts.jobs.cancel(job.id)
        except JobEnded:
            break  # by itself, just now
    return {}


@router.post(
    "/png-info",
    dependencies=[Depends(require_json)],
    responses=refusals(400, 413, 415, 422),
)
def read_png_info(body: PngInfoBody) -> PngInfoAnswer:
    """The text that a picture carries."""
    encoded = body.image.partition(",")[2] if body.image.startswith("data:") else body.image
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureUnreadable("image: send the file in base64") from error
    text = read(data).parameters or ""
    return PngInfoAnswer(info=text, items={"parameters": text} if text else {})


def _answer(parts: Parts, job: Job, body: TextToImage) -> TextToImageAnswer:
    assert job.spec.kind == "generation"
    drawn = pictures(parts, job)
    return TextToImageAnswer.of(job, drawn, parts.registry.get(job.spec.model), body)


def _unfinished(parts: Parts, caller: Caller) -> list[Job]:
    """The caller's own, running ones first, newest first."""
    jobs = parts.jobs.lists.latest("generation", limit=LOOKED_AT, tenant=caller.tenant)
    open_jobs = [job for job in jobs if not job.state.ended]
    return sorted(open_jobs, key=lambda job: job.state is not JobState.RUNNING)
