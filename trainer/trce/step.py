"""TRCE stage 2, one step: points and anchors through the UNet that is trained, and the losses."""

from collections.abc import Iterator

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.specs import SteeringOptions
from trainer.trce.lesson import Lesson
from trainer.trce.steering import SteeringLoss, hinge
from trainer.trce.texts import Texts, predict


def step_losses(
    unet: UNet2DConditionModel,
    lesson: Lesson,
    options: SteeringOptions,
    step: int,
    *,
    part: int = 0,
    parts: int = 1,
) -> Iterator[SteeringLoss]:
    """What one of a batch's parts adds to the loss of its step: both hinges, then the anchors.

    Each comes from a forward pass of its own, made when it is asked for. Whoever goes backward
    through the first before asking for the second has the activations of one pass in memory.
    All that come from all parts add up to the loss of the batch.
    """
    points, anchors = lesson.points, lesson.anchors
    rows = _part_of(lesson.draws, step, options.batch, part, parts)
    quiet = _part_of(lesson.anchor_draws, step, options.anchors, part, parts)
    nothing = lesson.kept.repeated(len(rows))
    none = torch.zeros((), device=points.latents.device)

    def predicted(latents: Tensor, timesteps: Tensor, texts: Texts) -> Tensor:
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=options.autocast):
            return predict(unet, latents, timesteps, texts)

    if len(rows):
        units = lesson.units[rows]

        def cost(prediction: Tensor) -> Tensor:
            targets = points.safe[rows], points.unsafe[rows]
            over = hinge(prediction, *targets, margin=options.margin * units) / units
            return over.sum() / options.batch

        prompted, unprompted = predicted(
            points.latents[rows].repeat(2, 1, 1, 1),
            points.timesteps[rows].repeat(2),
            lesson.prompts[points.prompts[rows]] + nothing,
        ).chunk(2)
        yield SteeringLoss(prompted=cost(prompted), unprompted=cost(unprompted), anchored=none)
        del prompted, unprompted

    if len(quiet):
        noise = predicted(
            anchors.latents[quiet], anchors.timesteps[quiet], lesson.kept[anchors.prompts[quiet]]
        )
        change = (noise - anchors.noise[quiet]).square().flatten(1).mean(dim=1)
        anchored = (change / lesson.anchor_units[quiet]).sum() / options.anchors
        yield SteeringLoss(prompted=none, unprompted=none, anchored=anchored)


def _part_of(draws: Tensor, step: int, batch: int, part: int, parts: int) -> Tensor:
    return draws[step * batch : (step + 1) * batch].tensor_split(parts)[part]
