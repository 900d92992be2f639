"""How much memory a UNet's passes take while it is trained: computed, not tried.

As in `diffusion.footprint`, but with gradients. Torch's fake tensors stand for those of a CPU:
autocast, recomputed activations and the attention that remembers what it read are as they are.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion.attention import parameter_names
from diffusion.footprint import Living
from diffusion.rehearsing import rehearsal


class TrainingFootprint(BaseModel):
    """Bytes beside the weights, at the size of pictures that the model is made for."""

    model_config = ConfigDict(frozen=True)

    drawing_row: int
    """Of each row of a pass without gradients, at the most."""
    step: int
    """Of a pass forward and backward: activations, gradients and, with autocast, weights in its
    dtype."""


def measure_training(
    unet_config: Mapping[str, Any],
    groups: Sequence[str],
    *,
    rows: int,
    autocast: bool,
    recomputed: bool,
) -> TrainingFootprint:
    """Only the config is read; weights are taken to be float32.

    Args:
        groups: what is trained, of `diffusion.attention.GROUPS`.
        rows: of a step.
        autocast: to bfloat16.
        recomputed: activations are not kept for the way back (gradient checkpointing).
    """
    return _measured(json.dumps(dict(unet_config)), tuple(groups), rows, autocast, recomputed)


@cache
def _measured(
    config: str, groups: tuple[str, ...], rows: int, autocast: bool, recomputed: bool
) -> TrainingFootprint:
    with FakeTensorMode():
        unet = UNet2DConditionModel.from_config(json.loads(config)).requires_grad_(False)
        side = unet.config.sample_size
        for name in (name for group in groups for name in parameter_names(unet, group)):
            unet.get_parameter(name).requires_grad_(True)
        if recomputed:
            unet.enable_gradient_checkpointing()

        def forward(count: int) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return rehearsal(unet, (side, side), count, "cpu")().float()

        with torch.no_grad():
            drawing = _peak(unet, lambda: forward(1))
        step = _peak(unet, lambda: forward(rows).square().mean().backward())
    return TrainingFootprint(drawing_row=drawing, step=step)


def _peak(unet: UNet2DConditionModel, run: Callable[[], Any]) -> int:
    living = Living(unet.parameters())
    with living:
        run()
    return living.peak
