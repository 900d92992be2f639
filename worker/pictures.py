"""From a picture to the bytes of a PNG that tell how it was made."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.specs import GenerationSpec
from worker.shelf import Variant


def encode_png(picture: Image.Image, spec: GenerationSpec, seed: int, variant: Variant) -> bytes:
    """With the text chunk `parameters` in the form that A1111 and its readers know."""
    info = PngInfo()
    info.add_itxt("parameters", _parameters(spec, seed, variant))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _parameters(spec: GenerationSpec, seed: int, variant: Variant) -> str:
    lines = [spec.prompt]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    settings = {
        "Steps": spec.num_inference_steps,
        "CFG scale": spec.guidance_scale,
        "Seed": seed,
        "Size": f"{spec.width}x{spec.height}",
        "Model hash": variant.digest[:10],
        "Model": variant.model_id,
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)
