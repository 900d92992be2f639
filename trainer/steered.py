"""Stage 2, start to end: a UNet, stage 1 and a spec in, changed tensors out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.edits import LossCurve
from core.errors import ModelUnsupported, NotEnoughRoom
from core.files import remove_unfinished
from core.progress import Reporter
from core.specs import Concept, ErasureSpec, SteeringOptions
from diffusion.erasure import Erasure
from diffusion.full_memory import ran_out
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.concepts import prompt_pairs
from trainer.preservation import caption_groups
from trainer.reporting import counter
from trainer.room import LESS_MEMORY
from trainer.sampling import Sampler
from trainer.sources import erasing_digest
from trainer.trce.draft import Draft
from trainer.trce.finetune import Checkpoint, finetune
from trainer.trce.following import captions_to_follow, pairs_to_follow
from trainer.trce.lesson import Lesson, load_lesson, prepare_lesson, save_lesson
from trainer.trce.ranks import ALONE, Ranks
from trainer.trce.steering import SteeringLoss

LESSON = "lesson.safetensors"
POINTS, ANCHORS = "points", "anchors"
CHECKPOINT = "steering.safetensors"


@dataclass(frozen=True)
class StageOne:
    """What stage 2 goes on from."""

    base_digest: str
    encoder: PromptEncoder
    known: ModelConcepts | None
    """What the base says it can draw."""
    native_px: int
    concepts: Sequence[Concept]
    erasure: Erasure


@dataclass(frozen=True)
class Steered:
    """What stage 2 made."""

    tensors: dict[str, Tensor]
    """Changed parameters by name, float16: the dtype in which they are served."""
    curve: LossCurve


def steer(
    unet: UNet2DConditionModel,
    scheduler_config: dict[str, Any],
    begun: StageOne,
    spec: ErasureSpec,
    *,
    report: Reporter,
    work: Path | None,
    ranks: Ranks = ALONE,
    sampler: Sampler | None = None,
    prompts_read: Callable[[], None] = lambda: None,
) -> Steered:
    """Train `unet`, the base's, in place.

    Args:
        prompts_read: called when no prompt will be read any more: whoever owns the text encoders
            may give their memory back then.
        sampler: shows on the way what `unet` draws.
        work: a folder of this run alone. What a killed run left there is taken up again; None:
            nothing is kept.
        ranks: all of them call this, with the same arguments, and get the same.

    Raises:
        SteeringDiverged, NotEnoughRoom.
        ModelUnsupported: a weight is not finite; told before a trajectory is drawn.
    """
    options = spec.steering
    assert options is not None
    _check_finite(unet)
    with _memory_named(unet.device):
        return _steer(
            *(unet, scheduler_config, begun, spec, options),
            report=report,
            work=work,
            ranks=ranks,
            sampler=sampler,
            prompts_read=prompts_read,
        )


def _check_finite(unet: UNet2DConditionModel) -> None:
    """Raises ModelUnsupported."""
    for name, weight in unet.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelUnsupported(f"{name} of the base's UNet is not finite")


def _steer(
    unet: UNet2DConditionModel,
    scheduler_config: dict[str, Any],
    begun: StageOne,
    spec: ErasureSpec,
    options: SteeringOptions,
    *,
    report: Reporter,
    work: Path | None,
    ranks: Ranks,
    sampler: Sampler | None,
    prompts_read: Callable[[], None],
) -> Steered:
    if work is not None and ranks.own == 0:
        # The others write nothing before all have agreed below.
        remove_unfinished(work, "*.safetensors")
    key = _key(begun, spec)
    lesson = load_lesson(work / LESSON, key, unet.device) if work else None
    if not ranks.agree(int(lesson is not None), unet.device):
        raise RuntimeError(f"process {ranks.own} finds a lesson where another one finds none")
    if lesson is None:
        drafts = _drafts(work, key, ranks) if work else None
        lesson = _prepare(
            *(unet, scheduler_config, begun, spec, report, drafts, ranks), prompts_read
        )
        if work is not None and ranks.own == 0:
            save_lesson(work / LESSON, lesson, key)
        for draft in drafts or ():
            draft.discard()
    else:
        prompts_read()

    count = counter(report, "steering", options.steps)
    done = 0

    def advance(steps: int, loss: SteeringLoss) -> None:
        nonlocal done
        count(steps, loss.figures)
        before, done = done, done + steps
        if sampler is not None:
            sampler.during_stage_two(before, done, options.steps, begun.erasure)

    changed, losses = finetune(
        unet,
        lesson,
        options,
        checkpoint=Checkpoint(work / CHECKPOINT, key) if work else None,
        advance=advance,
        ranks=ranks,
    )
    halves = {name: tensor.half().cpu() for name, tensor in changed.items()}
    return Steered(tensors=halves, curve=losses.curve())


@contextmanager
def _memory_named(device: torch.device) -> Iterator[None]:
    """Memory that runs out all the same, because others took it, is told with what to do.

    Raises:
        NotEnoughRoom
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or ran_out(error)):
            raise
        raise NotEnoughRoom(f"memory ran out on {device} in stage 2; {LESS_MEMORY}") from error


def _prepare(
    unet: UNet2DConditionModel,
    scheduler_config: dict[str, Any],
    begun: StageOne,
    spec: ErasureSpec,
    report: Reporter,
    drafts: tuple[Draft, Draft] | None,
    ranks: Ranks,
    prompts_read: Callable[[], None],
) -> Lesson:
    options, textual = spec.steering, spec.textual
    assert options is not None
    groups = caption_groups(
        known=begun.known, protect=textual.protect, seed=spec.seed, own=textual.captions
    )
    kept = captions_to_follow(
        groups,
        options.kept_trajectories,
        erased=[word for concept in begun.concepts for word in concept.words],
        seed=spec.seed,
    )
    trajectories = options.trajectories + options.anchor_trajectories + len(kept)
    return prepare_lesson(
        *(unet, begun.encoder, scheduler_config),
        pairs_to_follow(prompt_pairs(begun.concepts), options.trajectories, seed=spec.seed),
        *(kept, begun.erasure, options),
        seed=spec.seed,
        size_px=begun.native_px,
        advance=counter(report, "drawing trajectories", trajectories),
        prompts_read=prompts_read,
        drafts=drafts,
        ranks=ranks,
    )


def _drafts(work: Path, key: str, ranks: Ranks) -> tuple[Draft, Draft]:
    """Each rank keeps its own share; shares of another number of ranks are other trajectories."""
    key = f"{key} of {ranks.count}"
    suffix = f"-{ranks.own}.safetensors"
    return Draft(work / f"{POINTS}{suffix}", key), Draft(work / f"{ANCHORS}{suffix}", key)


def _key(begun: StageOne, spec: ErasureSpec) -> str:
    """The digest of everything that the run depends on."""
    digest = hashlib.sha256(
        f"{erasing_digest()} {begun.base_digest} {spec.model_dump_json()}".encode()
    )
    for concept in begun.concepts:
        digest.update(concept.model_dump_json().encode())
    for one in (begun.erasure.text_map, begun.erasure.pooled_map):
        if one is not None:
            digest.update(one.contiguous().numpy().data)
    return digest.hexdigest()
