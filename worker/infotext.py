"""The text that goes with a picture, in the form that A1111 and its readers know."""

from core.specs import GenerationSpec
from core.version import CODE_VERSION
from worker.variant import Variant


def infotext(spec: GenerationSpec, seed: int, variant: Variant) -> str:
    lines = [spec.prompt]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    sampler, schedule = variant.base.scheduler_label(spec.scheduler)
    settings = {
        "Steps": spec.num_inference_steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": spec.guidance_scale,
        "Seed": seed,
        "Size": f"{spec.width}x{spec.height}",
        "Model hash": variant.digest[:10],
        "Model": variant.model_id,
        "Certificate": variant.manifest.certificate,
        "Version": f"trce-{CODE_VERSION}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)
