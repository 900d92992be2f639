"""TRCE stage 2, the training: self-attention and the queries of cross-attention learn to steer.

The UNet that is trained reads prompts through the text map of stage 1, whose place, keys and
values, stays as it is. What is trained never met the text: it decides by x_t where to look, and
so acts on prompts that no list foresaw.

A run that is stopped and resumed equals one that was not, bit for bit on one machine: the
points of every step are drawn in advance, and a checkpoint holds parameters and optimiser state.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Parameter

from core.edits import LossCurve
from core.errors import SteeringDiverged
from core.files import write_atomically
from core.specs import SteeringOptions
from diffusion.attention import parameter_names
from trainer.trce.lesson import Lesson
from trainer.trce.passes import TRAINED
from trainer.trce.ranks import ALONE, Ranks
from trainer.trce.steering import SteeringLoss
from trainer.trce.step import step_losses

CHECKPOINT_EVERY_S = 120.0
FORMAT = "trce-finetune-1"


@dataclass(frozen=True)
class Losses:
    """One value per step."""

    prompted: list[float]
    unprompted: list[float]
    anchored: list[float]

    def append(self, loss: SteeringLoss) -> None:
        for name, value in loss.figures.items():
            getattr(self, name).append(value)

    def last(self) -> SteeringLoss:
        values = (self.prompted[-1], self.unprompted[-1], self.anchored[-1])
        return SteeringLoss(*(torch.tensor(value, dtype=torch.float64) for value in values))

    def curve(self, *, at_most: int = 200) -> LossCurve:
        """Means over runs of steps, so that there are not too many values to read."""
        every = -(-len(self.prompted) // at_most)

        def thinned(values: list[float]) -> tuple[float, ...]:
            runs = [values[start : start + every] for start in range(0, len(values), every)]
            return tuple(float(f"{fmean(run):.6g}") for run in runs)

        return LossCurve(
            every=every,
            prompted=thinned(self.prompted),
            unprompted=thinned(self.unprompted),
            anchored=thinned(self.anchored),
        )


def trainable(unet: UNet2DConditionModel) -> dict[str, Parameter]:
    """Every parameter of self-attention, and the queries of cross-attention."""
    parameters = dict(unet.named_parameters())
    names = [name for group in TRAINED for name in parameter_names(unet, group)]
    return {name: parameters[name] for name in names}


@dataclass(frozen=True)
class Checkpoint:
    """A file that a killed run is resumed from."""

    path: Path
    key: str
    """Names everything that the run depends on; a file of another key is not resumed."""

    def save(
        self,
        parameters: dict[str, Parameter],
        optimizer: torch.optim.Optimizer,
        losses: Losses,
    ) -> None:
        tensors = {}
        for name, parameter in parameters.items():
            tensors[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
            for kind, value in optimizer.state[parameter].items():
                tensors[f"{kind}/{name}"] = value.detach().cpu().contiguous()
        document = {"key": self.key, "losses": asdict(losses)}
        write_atomically(self.path, save(tensors, metadata={FORMAT: json.dumps(document)}))

    def resume(
        self,
        parameters: dict[str, Parameter],
        optimizer: torch.optim.Optimizer,
        losses: Losses,
    ) -> int:
        """Steps done already; none, if the file is of another key, absent or unreadable."""
        try:
            with safe_open(str(self.path), framework="pt") as file:
                document: dict[str, Any] = json.loads((file.metadata() or {})[FORMAT])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            return 0
        if document["key"] != self.key:
            return 0
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"parameter/{name}"])
                optimizer.state[parameter] = {
                    kind: tensors[f"{kind}/{name}"].to(
                        parameter.device if kind != "step" else "cpu"
                    )
                    for kind in ("step", "exp_avg", "exp_avg_sq")
                }
        for name, values in document["losses"].items():
            getattr(losses, name).extend(values)
        return len(losses.prompted)


def finetune(
    unet: UNet2DConditionModel,
    lesson: Lesson,
    options: SteeringOptions,
    *,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[int, SteeringLoss], None],
    ranks: Ranks = ALONE,
) -> tuple[dict[str, Tensor], Losses]:
    """Train `unet` in place.

    Args:
        checkpoint: where to resume from, and what is written now and then.
        advance: told (steps done since the last call, the loss of the last one).
        ranks: all of them call this, with the same lesson and checkpoint, and get the same.

    Returns:
        The changed parameters by name, and the loss of every step.

    Raises:
        SteeringDiverged: the loss is not a number.
    """
    parameters = trainable(unet)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    losses = Losses([], [], [])
    first = checkpoint.resume(parameters, optimizer, losses) if checkpoint else 0
    if not ranks.agree(first, unet.device):
        raise RuntimeError(f"process {ranks.own} resumes at step {first}, another one elsewhere")
    if first == options.steps:
        # It was killed between its last checkpoint and its end: the loop has nothing to tell.
        advance(first, losses.last())
    saved_at = time.monotonic()
    for step in range(first, options.steps):
        optimizer.zero_grad(set_to_none=True)
        loss = _backward(unet, lesson, options, step, ranks)
        ranks.add_up(one.grad for one in parameters.values() if one.grad is not None)
        optimizer.step()
        losses.append(loss)
        advance(1 if step > first else 1 + first, loss)
        overdue = time.monotonic() - saved_at > CHECKPOINT_EVERY_S
        if checkpoint is not None and ranks.own == 0 and overdue:
            checkpoint.save(parameters, optimizer, losses)
            saved_at = time.monotonic()
    if options.gradient_checkpointing:
        unet.disable_gradient_checkpointing()
    for parameter in parameters.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    changed = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    return changed, losses


def _backward(
    unet: UNet2DConditionModel,
    lesson: Lesson,
    options: SteeringOptions,
    step: int,
    ranks: Ranks = ALONE,
) -> SteeringLoss:
    """This rank's share of one step's gradients, in as many parts as the options say.

    Returns:
        The loss of the whole step.
    """
    parts = [ranks.own * options.accumulation + part for part in range(options.accumulation)]
    loss: SteeringLoss | None = None
    for part in parts:
        for share in step_losses(
            unet, lesson, options, step, part=part, parts=ranks.count * len(parts)
        ):
            share.total(regularisation=options.regularisation).backward()
            loss = share.detach() if loss is None else loss + share.detach()
            del share
    assert loss is not None
    ranks.add_up([loss.prompted, loss.unprompted, loss.anchored])
    total = loss.total(regularisation=options.regularisation)
    if not bool(total.isfinite()):
        raise SteeringDiverged(
            f"stage 2: the loss is {total.item()} at step {step}; lower the learning rate"
        )
    return loss
