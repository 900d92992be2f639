"""TRCE stage 2, what one run is taught: prepared once, before the first step.

Preparing costs a large part of stage 2. So a lesson can be kept beside a run's checkpoint; one
that is killed and started again finds it there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from core.files import write_atomically
from core.specs import SteeringOptions
from diffusion.erasure import Erasure
from diffusion.prompts import PromptEncoder
from trainer.concepts import PromptPair
from trainer.trce.course import Course
from trainer.trce.draft import Draft
from trainer.trce.passes import drawing_batch
from trainer.trce.ranks import ALONE, Ranks
from trainer.trce.texts import Texts
from trainer.trce.trajectories import (
    AnchorPoints,
    SteeringPoints,
    anchor_points,
    choose_anchors,
    choose_points,
    steering_points,
)

FORMAT = "trce-lesson-1"
SMALLEST_UNIT = 1e-8
"""Two prompts that mean the same to the model are no reason to divide by nothing."""
SINGLE = ("draws", "anchor_draws", "units", "anchor_units")
GROUPS = ("points", "anchors", "prompts", "kept")


@dataclass(frozen=True)
class Lesson:
    """Everything that training reads."""

    points: SteeringPoints
    draws: Tensor
    """(steps * batch,) int64, the point of each draw, in order."""
    anchors: AnchorPoints
    anchor_draws: Tensor
    """(steps * anchors,) int64, the anchor point of each draw, in order."""
    prompts: Texts
    """The unsafe prompts as the trained UNet reads them: mapped by stage 1."""
    kept: Texts
    """The empty prompt and what else is to keep its meaning, mapped too."""
    units: Tensor
    """(points,), what each point's hinge is measured in."""
    anchor_units: Tensor
    """(anchors,), the same for the anchors' change."""


def prepare_lesson(
    unet: UNet2DConditionModel,
    encoder: PromptEncoder,
    scheduler_config: dict[str, Any],
    pairs: Sequence[PromptPair],
    kept: Sequence[str],
    erasure: Erasure,
    options: SteeringOptions,
    *,
    seed: int,
    size_px: int,
    advance: Callable[[int], None],
    prompts_read: Callable[[], None] = lambda: None,
    drafts: tuple[Draft, Draft] | None = None,
    ranks: Ranks = ALONE,
) -> Lesson:
    """Draw the trajectories of one run.

    Args:
        unet: the original one.
        pairs: what to follow, one trajectory each and in this order, again from the first when
            there are more trajectories than pairs.
        kept: captions that are to keep their meaning; one trajectory follows each of the first
            `options.kept_trajectories`.
        erasure: stage 1.
        size_px: the side of the pictures that the model draws.
        advance: told the number of trajectories finished since the last call, and with 0 that
            some have come a step further.
        prompts_read: called when `encoder` has read all that it will be asked.
        drafts: where points and anchors are kept while they are drawn.
        ranks: all of them call this, and have the same lesson.
    """
    followed = list(pairs[: options.trajectories])
    anchored = list(kept[: options.kept_trajectories])
    unsafe = Texts.read(encoder, [pair.unsafe for pair in followed], size_px=size_px)
    safe = Texts.read(encoder, [pair.safe for pair in followed], size_px=size_px)
    texts = Texts.read(encoder, ["", *anchored], size_px=size_px)
    prompts_read()
    # Before autocast, in whose precision the maps would be applied.
    unsafe_mapped, kept_mapped = unsafe.through(erasure), texts.through(erasure)
    side = unet.config.sample_size
    course = Course(
        scheduler_config=scheduler_config,
        steps=options.trajectory_steps,
        guidance_scale=options.guidance_scale,
        shape=(unet.config.in_channels, side, side),
        seed=seed,
        batch=drawing_batch(unet.config, options, ranks.count),
    )
    early = max(1, round(options.early * options.trajectory_steps))
    chosen = choose_points(
        options.trajectories, early, count=options.steps * options.batch, seed=seed
    )
    chosen_anchors = choose_anchors(
        options.anchor_trajectories,
        len(anchored),
        options.trajectory_steps,
        count=options.steps * options.anchors,
        seed=seed,
    )
    precise = torch.autocast(unet.device.type, torch.bfloat16, enabled=options.autocast)
    points_draft, anchors_draft = drafts or (None, None)
    with torch.no_grad(), precise:
        points, draws = steering_points(
            *(unet, unsafe, safe, texts[torch.tensor([0])], chosen, course),
            target_scale=options.target_scale,
            advance=advance,
            draft=points_draft,
            ranks=ranks,
        )
        anchors, anchor_draws = anchor_points(
            *(unet, kept_mapped, chosen_anchors, course),
            unconditional=options.anchor_trajectories,
            advance=advance,
            draft=anchors_draft,
            ranks=ranks,
        )
    units, anchor_units = torch.ones(len(points.latents)), torch.ones(len(anchors.latents))
    if options.relative:
        units = (points.unsafe - points.safe).square().flatten(1).mean(dim=1)
        anchor_units = _usual_effect(anchors)
    device = unet.device
    return Lesson(
        *(points, draws, anchors, anchor_draws),
        *(unsafe_mapped, kept_mapped),
        units=units.clamp(min=SMALLEST_UNIT).to(device),
        anchor_units=anchor_units.clamp(min=SMALLEST_UNIT).to(device),
    )


def _usual_effect(anchors: AnchorPoints) -> Tensor:
    """(n,), for each anchor what captions change at its timestep, on average.

    Where no trajectory follows a caption, nothing is known of it, and the unit is 1.
    """
    effects = torch.ones_like(anchors.effect)
    for timestep in anchors.timesteps.unique():
        here = anchors.timesteps == timestep
        known = anchors.effect[here & (anchors.effect > 0)]
        if len(known):
            effects[here] = known.mean()
    return effects


def save_lesson(path: Path, lesson: Lesson, key: str) -> None:
    """`key` names everything that the lesson was prepared from."""
    tensors = {name: getattr(lesson, name) for name in SINGLE}
    for group in GROUPS:
        part = getattr(lesson, group)
        for one in fields(part):
            value = getattr(part, one.name)
            if isinstance(value, Tensor):
                tensors[f"{group}.{one.name}"] = value
    stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    document = {"key": key, "size_px": lesson.prompts.size_px}
    write_atomically(path, save(stored, metadata={FORMAT: json.dumps(document)}))


def load_lesson(path: Path, key: str, device: torch.device) -> Lesson | None:
    """The lesson of that key; None when there is none, or it cannot be read."""
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            document = json.loads((file.metadata() or {})[FORMAT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    if document["key"] != key:
        return None
    parts = {
        group: {
            name.removeprefix(f"{group}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{group}.")
        }
        for group in GROUPS
    }
    size = document["size_px"]
    return Lesson(
        points=SteeringPoints(**parts["points"]),
        anchors=AnchorPoints(**parts["anchors"]),
        prompts=Texts(**parts["prompts"], size_px=size),
        kept=Texts(**parts["kept"], size_px=size),
        **{name: tensors[name] for name in SINGLE},
    )
