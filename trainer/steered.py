"""Stage 2, start to end: a base, stage 1's map and a spec in, changed tensors out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.errors import ModelUnsupported
from core.manifests import LossCurve
from core.progress import Reporter
from core.specs import Concept, ErasureSpec
from core.version import CODE_VERSION
from diffusion.erasure import Erasure
from diffusion.families import ADDED_CONDITION
from diffusion.loading import load_unet
from diffusion.prompts import PromptEncoder
from trainer.concepts import prompt_pairs
from trainer.reporting import counter
from trainer.trce.finetune import Checkpoint, finetune
from trainer.trce.following import pairs_to_follow
from trainer.trce.lesson import Lesson, load_lesson, prepare_lesson, save_lesson
from trainer.trce.steering import SteeringLoss

LESSON = "lesson.safetensors"
CHECKPOINT = "steering.safetensors"


@dataclass(frozen=True)
class Steered:
    """What stage 2 made."""

    tensors: dict[str, Tensor]
    """Changed parameters by name, float16: the dtype in which they are served."""
    curve: LossCurve

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())


def steer(
    base: Path,
    family: str,
    encoder: PromptEncoder,
    concepts: Sequence[Concept],
    erasure: Erasure,
    spec: ErasureSpec,
    *,
    base_digest: str,
    device: torch.device | str,
    report: Reporter,
    work: Path | None,
) -> Steered:
    """Train the UNet in the folder `base`, which was checked.

    Args:
        erasure: stage 1.
        work: a folder of this run alone. What a killed run left there is taken up again; None:
            nothing is kept.

    Raises:
        SteeringDiverged, ModelUnsupported.
    """
    options = spec.steering
    assert options is not None
    if ADDED_CONDITION[family] is not None:
        raise ModelUnsupported(
            f"stage 2 does not train models of the family {family}; leave out `steering`"
        )
    unet, scheduler_config = load_unet(base, device=device)
    key = _key(erasure, concepts, spec, base_digest)
    lesson = _lesson(unet, scheduler_config, encoder, concepts, erasure, spec, key, report, work)

    count = counter(report, "steering", options.steps)

    def advance(steps: int, loss: SteeringLoss) -> None:
        count(steps, loss.figures)

    changed, losses = finetune(
        unet,
        lesson,
        options,
        seed=spec.seed,
        checkpoint=Checkpoint(work / CHECKPOINT, key) if work else None,
        advance=advance,
    )
    halves = {name: tensor.half().cpu() for name, tensor in changed.items()}
    return Steered(tensors=halves, curve=losses.curve())


def _lesson(
    unet: UNet2DConditionModel,
    scheduler_config: dict[str, Any],
    encoder: PromptEncoder,
    concepts: Sequence[Concept],
    erasure: Erasure,
    spec: ErasureSpec,
    key: str,
    report: Reporter,
    work: Path | None,
) -> Lesson:
    options = spec.steering
    assert options is not None
    advance = counter(
        report, "drawing trajectories", options.trajectories + options.anchor_trajectories
    )
    device = unet.device
    if work is not None and (kept := load_lesson(work / LESSON, key, device)) is not None:
        advance(options.trajectories + options.anchor_trajectories)
        return kept
    lesson = prepare_lesson(
        unet,
        encoder,
        scheduler_config,
        pairs_to_follow(prompt_pairs(concepts), options.trajectories, seed=spec.seed),
        erasure,
        options,
        seed=spec.seed,
        advance=advance,
    )
    if work is not None:
        save_lesson(work / LESSON, lesson, key)
    return lesson


def _key(
    erasure: Erasure, concepts: Sequence[Concept], spec: ErasureSpec, base_digest: str
) -> str:
    """The digest of everything that the run depends on."""
    digest = hashlib.sha256(f"{CODE_VERSION} {base_digest} {spec.model_dump_json()}".encode())
    for concept in concepts:
        digest.update(concept.model_dump_json().encode())
    if erasure.text_map is not None:
        digest.update(erasure.text_map.contiguous().numpy().data)
    return digest.hexdigest()
