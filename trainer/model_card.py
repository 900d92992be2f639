"""The README.md of an erased model: what it is, how it was made, how to use it."""

import yaml

from core.edits import Edit

FIGURES = (
    "condition_number",
    "relative_change",
    "words",
    "parameters_changed",
    "artifact_bytes",
    "unet_bytes",
)


def text(model_id: str, edit: Edit) -> str:
    """Markdown with the YAML front matter that model hubs read.

    It says nothing of how long the run took: the same erasure made again is the same folder.
    """
    front = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": edit.base_model,
        "tags": ["stable-diffusion", "concept-erasure", edit.method],
    }
    erased = "\n".join(
        f"- **{concept.name}**, becomes *{concept.replacement}*" for concept in edit.concepts
    )
    erased = erased or "Nothing: its last concept was taken out, and it is its base, bit for bit."
    options = "\n".join(f"| {name} | {value} |" for name, value in _options(edit).items())
    figures = "\n".join(
        f"| {name} | {edit.figures[name]:.4g} |" for name in FIGURES if name in edit.figures
    )
    if edit.loss_curve is not None:
        figures += "".join(
            f"\n| {name} loss, first and last | {values[0]:.4g}, {values[-1]:.4g} |"
            for name, values in edit.loss_curve.model_dump(exclude={"every"}).items()
        )
    stages = "stage 1" if edit.steering is None else "both stages"
    trained = "" if edit.steering is None else ", and the tensors that stage 2 changed"
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {model_id}

`{edit.base_model}` with concepts erased by {edit.method.upper()} (arXiv:2503.07389), {stages}. The
model still draws everything else; asked for one of these, it draws something harmless:

{erased}

`unet/` is a UNet for diffusers with the erasure in its weights. Put it in the place of the base's
own: `UNet2DConditionModel.from_pretrained(folder, subfolder="unet")`. `erasure.safetensors` is the
same erasure as a map of the text embedding, which a server applies to prompts{trained}.

It draws as fast as its base: the UNet has the same tensors in the same shapes. A server that maps
prompts multiplies each once by the map, whatever the number of steps. `manifest.json` has the
seconds that were measured, of this and of making the model.

Erasure lowers the chance that a concept is drawn. It does not make it zero, and somebody who has
the weights can train a concept back in.

| setting | value |
|---|---|
| base digest | {edit.base_digest} |
| seed | {edit.seed} |
{options}

| figure | value |
|---|---|
{figures}
"""


def _options(edit: Edit) -> dict[str, object]:
    options = edit.textual
    return {
        **options.model_dump(mode="json", exclude={"protect", "captions"}),
        "protect": ", ".join(f"{one.name} ({one.weight:g})" for one in options.protect) or "none",
        "captions": f"{len(options.captions)} of the user's" if options.captions else "shipped",
        "merged from": ", ".join(edit.merged) or "none",
        **(edit.steering.model_dump(mode="json") if edit.steering else {}),
    }
