"""What an erasure costs: to make, by its manifest, and to draw with, timed here."""

from core.edits import Edit
from core.reports import ErasureCosts, Latency
from diffusion.erasure import Erasure
from trainer.evaluation.drawing import Studio
from trainer.latency import map_seconds, step_seconds
from trainer.trce.texts import Texts


def erasure_costs(edit: Edit, latency: Latency) -> ErasureCosts:
    def whole(figure: str) -> int | None:
        return int(edit.figures[figure]) if figure in edit.figures else None

    return ErasureCosts(
        seconds=edit.seconds,
        stages=edit.costs,
        processes=whole("processes") or 1,
        parameters_changed=whole("parameters_changed"),
        artifact_bytes=whole("artifact_bytes"),
        unet_bytes=whole("unet_bytes"),
        latency=latency,
    )


def latency(studio: Studio, erasure: Erasure, prompt: str) -> Latency:
    """Of one picture, in the studio's number of steps.

    Without changed tensors a step of the erased model is one of the base, and timed once.
    """
    device, steps = studio.components.unet.device, studio.options.num_inference_steps
    texts = Texts.read(studio.encoder, ["", prompt], size_px=studio.side_px).through(erasure)
    studio.wear(Erasure())
    parameters = dict(studio.components.unet.named_parameters())
    own = {name: parameters[name].detach().clone() for name in erasure.tensors}
    # The base's come last and stay.
    sides = [erasure.tensors, own] if own else [own]
    timed = step_seconds(studio.components.unet, texts, *sides)
    erased, base = timed[0], timed[-1]
    mapping = map_seconds(erasure, device)
    return Latency(
        map_prompt_seconds=mapping,
        base_step_seconds=base,
        step_seconds=erased,
        steps=steps,
        change=round((mapping + steps * erased) / (steps * base) - 1, 6),
    )
