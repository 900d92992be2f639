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
from trainer.trce.trajectories import (
    AnchorPoints,
    Course,
    SteeringPoints,
    anchor_points,
    choose_points,
    steering_points,
)

FORMAT = "trce-lesson-1"
BATCH = 16
"""Trajectories that are drawn together."""
ENCODED_TOGETHER = 64


@dataclass(frozen=True)
class Lesson:
    """Everything that training reads."""

    points: SteeringPoints
    draws: Tensor
    """(steps * batch,) int64, the point of each draw, in order."""
    anchors: AnchorPoints
    prompts: Tensor
    """(p, 77, d), the unsafe prompts as the trained UNet reads them: mapped by stage 1."""
    empty: Tensor
    """(77, d), the empty prompt, mapped too."""


def prepare_lesson(
    unet: UNet2DConditionModel,
    encoder: PromptEncoder,
    scheduler_config: dict[str, Any],
    pairs: Sequence[PromptPair],
    erasure: Erasure,
    options: SteeringOptions,
    *,
    seed: int,
    advance: Callable[[int], None],
) -> Lesson:
    """Draw the trajectories of one run.

    Args:
        unet: the original one.
        pairs: what to follow, one trajectory each and in this order, again from the first when
            there are more trajectories than pairs.
        erasure: stage 1.
        advance: told the number of trajectories finished since the last call; there are
            `options.trajectories + options.anchor_trajectories`.
    """
    followed = list(pairs[: options.trajectories])
    unsafe = _encode(encoder, [pair.unsafe for pair in followed])
    safe = _encode(encoder, [pair.safe for pair in followed])
    empty = encoder.encode("").embedding
    mapped_empty = erasure.map_prompts(empty)
    side = unet.config.sample_size
    course = Course(
        scheduler_config=scheduler_config,
        steps=options.trajectory_steps,
        guidance_scale=options.guidance_scale,
        shape=(unet.config.in_channels, side, side),
        seed=seed,
        batch=BATCH,
    )
    chosen = choose_points(
        options.trajectories,
        max(1, round(options.early * options.trajectory_steps)),
        count=options.steps * options.batch,
        seed=seed,
    )
    precise = torch.autocast(unet.device.type, torch.bfloat16, enabled=options.autocast)
    with torch.no_grad(), precise:
        points, draws = steering_points(
            *(unet, unsafe, safe, empty, chosen, course),
            target_scale=options.target_scale,
            advance=advance,
        )
        anchors = anchor_points(
            unet, mapped_empty, options.anchor_trajectories, course, advance=advance
        )
    return Lesson(points, draws, anchors, erasure.map_prompts(unsafe), mapped_empty)


def save_lesson(path: Path, lesson: Lesson, key: str) -> None:
    """`key` names everything that the lesson was prepared from."""
    tensors = {
        "draws": lesson.draws,
        "prompts": lesson.prompts,
        "empty": lesson.empty,
        **{
            f"points.{one.name}": getattr(lesson.points, one.name) for one in fields(lesson.points)
        },
        **{
            f"anchors.{one.name}": getattr(lesson.anchors, one.name)
            for one in fields(lesson.anchors)
        },
    }
    stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(stored, metadata={FORMAT: json.dumps(key)}))


def load_lesson(path: Path, key: str, device: torch.device) -> Lesson | None:
    """The lesson of that key; None when there is none, or it cannot be read."""
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            if json.loads((file.metadata() or {})[FORMAT]) != key:
                return None

            def group(kind: type, prefix: str) -> Any:
                return kind(
                    **{one.name: file.get_tensor(f"{prefix}.{one.name}") for one in fields(kind)}
                )

            return Lesson(
                points=group(SteeringPoints, "points"),
                draws=file.get_tensor("draws"),
                anchors=group(AnchorPoints, "anchors"),
                prompts=file.get_tensor("prompts"),
                empty=file.get_tensor("empty"),
            )
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _encode(encoder: PromptEncoder, prompts: Sequence[str]) -> Tensor:
    batches = encoder.batches(prompts, size=ENCODED_TOGETHER)
    return torch.cat([batch.embeddings for batch in batches])
