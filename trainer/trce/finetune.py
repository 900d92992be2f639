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
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Parameter

from core.errors import SteeringDiverged
from core.files import write_atomically
from diffusion.attention import parameter_names
from trainer.trce.steering import SteeringLoss, hinge
from trainer.trce.trajectories import AnchorPoints, SteeringPoints

CHECKPOINT_EVERY_S = 120.0
FORMAT = "trce-finetune-1"


@dataclass(frozen=True)
class Recipe:
    """How stage 2 trains; see core.specs.SteeringOptions."""

    learning_rate: float
    weight_decay: float
    steps: int
    batch: int
    anchors: int
    """Points of unconditional trajectories in each step."""
    margin: float
    regularisation: float
    seed: int


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


@dataclass(frozen=True)
class LossCurve:
    """One value per step."""

    prompted: list[float]
    unprompted: list[float]
    anchored: list[float]

    def append(self, loss: SteeringLoss) -> None:
        self.prompted.append(loss.prompted.item())
        self.unprompted.append(loss.unprompted.item())
        self.anchored.append(loss.anchored.item())


def trainable(unet: UNet2DConditionModel) -> dict[str, Parameter]:
    """Every parameter of self-attention, and the queries of cross-attention."""
    parameters = dict(unet.named_parameters())
    names = [*parameter_names(unet, "self-attention"), *parameter_names(unet, "queries")]
    return {name: parameters[name] for name in names}


def finetune(
    unet: UNet2DConditionModel,
    lesson: Lesson,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    advance: Callable[[int, SteeringLoss], None],
) -> tuple[dict[str, Tensor], LossCurve]:
    """Train `unet` in place.

    Args:
        checkpoint: a file to resume from when it is there, and written now and then.
        advance: told (steps done since the last call, the loss of the last one).

    Returns:
        The changed parameters by name, and the loss of every step.

    Raises:
        SteeringDiverged: the loss is not a number.
    """
    parameters = trainable(unet)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    curve = LossCurve([], [], [])
    first = _resume(checkpoint, recipe, parameters, optimizer, curve)
    saved_at = time.monotonic()
    for step in range(first, recipe.steps):
        optimizer.zero_grad(set_to_none=True)
        loss = step_loss(unet, lesson, recipe, step)
        total = loss.total(regularisation=recipe.regularisation)
        if not bool(total.isfinite()):
            raise SteeringDiverged(
                f"stage 2: the loss is {total.item()} at step {step}; lower the learning rate"
            )
        total.backward()
        optimizer.step()
        curve.append(loss)
        advance(1 if step > first else 1 + first, loss)
        if checkpoint is not None and time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
            _save(checkpoint, recipe, parameters, optimizer, curve)
            saved_at = time.monotonic()
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    changed = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    return changed, curve


def step_loss(
    unet: UNet2DConditionModel, lesson: Lesson, recipe: Recipe, step: int
) -> SteeringLoss:
    """The loss of one step, in one forward pass: x_t with its prompt and without, and u_t."""
    points, anchors = lesson.points, lesson.anchors
    rows = lesson.draws[step * recipe.batch : (step + 1) * recipe.batch]
    generator = torch.Generator().manual_seed(recipe.seed + step)
    quiet = torch.randint(len(anchors.latents), (recipe.anchors,), generator=generator)

    latents = points.latents[rows]
    predicted = unet(
        torch.cat([latents, latents, anchors.latents[quiet]]),
        torch.cat([points.timesteps[rows], points.timesteps[rows], anchors.timesteps[quiet]]),
        encoder_hidden_states=torch.cat(
            [
                lesson.prompts[points.prompts[rows]],
                lesson.empty.expand(len(rows) + len(quiet), -1, -1),
            ]
        ),
        return_dict=False,
    )[0]
    prompted, unprompted, anchored = predicted.split([len(rows), len(rows), len(quiet)])
    targets = points.safe[rows], points.unsafe[rows]
    return SteeringLoss(
        prompted=hinge(prompted, *targets, margin=recipe.margin).mean(),
        unprompted=hinge(unprompted, *targets, margin=recipe.margin).mean(),
        anchored=(anchored - anchors.noise[quiet]).square().mean(),
    )


def _save(
    path: Path,
    recipe: Recipe,
    parameters: dict[str, Parameter],
    optimizer: torch.optim.Optimizer,
    curve: LossCurve,
) -> None:
    tensors = {}
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
    document = {"recipe": asdict(recipe), "curve": asdict(curve)}
    write_atomically(path, save(tensors, metadata={FORMAT: json.dumps(document)}))


def _resume(
    path: Path | None,
    recipe: Recipe,
    parameters: dict[str, Parameter],
    optimizer: torch.optim.Optimizer,
    curve: LossCurve,
) -> int:
    """Steps done already; none, if the checkpoint is of another recipe or cannot be read."""
    if path is None or not path.exists():
        return 0
    try:
        with safe_open(str(path), framework="pt") as file:
            document: dict[str, Any] = json.loads((file.metadata() or {})[FORMAT])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0
    if document["recipe"] != asdict(recipe):
        return 0
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
            optimizer.state[parameter] = {
                key: tensors[f"{key}/{name}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    for name, values in document["curve"].items():
        getattr(curve, name).extend(values)
    return len(curve.prompted)
