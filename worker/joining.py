"""A drawing's way into the batch: its texts encoded, its pictures given their rows."""

from collections.abc import Sequence
from functools import partial

from diffusion.denoise_request import DenoiseRequest
from worker import metrics
from worker.drawing import Drawing


def join(drawing: Drawing, company: Sequence[str]) -> None:
    """Put its pictures into the batch.

    Args:
        company: texts of those that came with it; none are encoded with one that is alone.
    """
    spec, variant, alone = drawing.spec, drawing.variant, drawing.lease.alone
    # Admission fills these in.
    assert spec.width is not None
    assert spec.height is not None
    assert spec.seed is not None
    embed = partial(variant.embed, company=company, alone=alone)
    guided = spec.guidance_scale > 1
    with metrics.at_device("encode"):
        prompt = embed(spec.prompt)
        negative = embed(spec.negative_prompt) if guided else None
    requests = [
        DenoiseRequest.of(
            *(key, prompt, negative),
            seed=spec.seed + key.number,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            width_px=spec.width,
            height_px=spec.height,
            scheduler=spec.scheduler,
            watched=spec.previews > 0,
            alone=alone,
        )
        for key in drawing.keys
    ]
    try:
        for request in requests:
            variant.denoiser.join(request)
        drawing.total = variant.denoiser.steps_total(requests[0].key)
    except BaseException:
        for key in drawing.keys:
            variant.denoiser.leave(key)
        raise


def texts_beside(drawing: Drawing, opened: Sequence[Drawing]) -> list[str]:
    """What is to be encoded for those that were opened together with a drawing, and for itself."""
    return [
        text
        for one in opened
        if one.variant.encoder is drawing.variant.encoder and not one.lease.alone
        for text in (one.spec.prompt, one.spec.negative_prompt)
    ]
