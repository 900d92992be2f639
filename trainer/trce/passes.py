"""TRCE stage 2: how many rows its passes have, and the memory they take."""

from collections.abc import Mapping
from typing import Any

import torch

from core.specs import SteeringOptions
from diffusion.training_footprint import TrainingFootprint, measure_training

TRAINED = ("self-attention", "queries")
"""Of `diffusion.attention.GROUPS`."""
DRAWN_TOGETHER = (16, 8, 4, 2, 1)
"""Trajectories; see `drawing_batch`."""
ROWS_OF_A_TRAJECTORY = 3
"""Predictions at each of its points at the most: without a prompt, with one, with its partner."""
LITTLE_BYTES = 256 << 20
"""Nobody need reckon with less."""
ACTIVATIONS = 32
"""As large as the largest of its channels, at most as many are alive at once in a pass; in SD 1.5
and SDXL a fifth and less."""
PADDED_TO = 4
"""Passes that draw have a multiple of so many rows."""


def footprint(
    unet_config: Mapping[str, Any], options: SteeringOptions, processes: int = 1
) -> TrainingFootprint:
    return measure_training(
        unet_config,
        TRAINED,
        rows=training_rows(options, processes),
        autocast=options.autocast,
        recomputed=options.gradient_checkpointing,
    )


def training_rows(options: SteeringOptions, processes: int = 1) -> int:
    """Of the larger pass of a step: both hinges, or the anchors."""
    parts = options.accumulation * processes
    return max(2 * -(-options.batch // parts), -(-options.anchors // parts))


def drawing_rows(batch: int) -> int:
    return -(-ROWS_OF_A_TRAJECTORY * batch // PADDED_TO) * PADDED_TO


def drawing_batch(
    unet_config: Mapping[str, Any], options: SteeringOptions, processes: int = 1
) -> int:
    """The most trajectories that are drawn together in no more memory than training takes.

    So drawing never needs more than what follows; and it depends on the model and the options
    alone, not on what is free just now, for other batches are rounded otherwise.
    """
    largest = DRAWN_TOGETHER[0]
    if drawing_rows(largest) * _surely_enough(unet_config) <= LITTLE_BYTES:
        return largest
    passes = footprint(unet_config, options, processes)
    fit = (one for one in DRAWN_TOGETHER if drawing_rows(one) * passes.drawing_row <= passes.step)
    return next(fit, DRAWN_TOGETHER[-1])


def passes_bytes(
    unet_config: Mapping[str, Any], options: SteeringOptions, processes: int = 1
) -> int:
    """Of the largest pass of all."""
    passes = footprint(unet_config, options, processes)
    together = drawing_rows(drawing_batch(unet_config, options, processes))
    return max(together * passes.drawing_row, passes.step)


def _surely_enough(unet_config: Mapping[str, Any]) -> int:
    """Bytes for a row, told at once; computing what it takes takes seconds."""
    widest = max(unet_config["block_out_channels"])
    return int(ACTIVATIONS * widest * unet_config["sample_size"] ** 2 * torch.float32.itemsize)
