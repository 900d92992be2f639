"""TRCE stage 2: how many rows its passes have, and the memory they take."""

from collections.abc import Mapping
from typing import Any

from core.specs import SteeringOptions
from diffusion.training_footprint import TrainingFootprint, measure_training

TRAINED = ("self-attention", "queries")
"""Of `diffusion.attention.GROUPS`."""
DRAWN_TOGETHER = (16, 8, 4, 2, 1)
"""Trajectories; see `drawing_batch`."""
ROWS_OF_A_TRAJECTORY = 3
"""Predictions at each of its points at the most: without a prompt, with one, with its partner."""
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


def drawing_batch(passes: TrainingFootprint) -> int:
    """The most trajectories that are drawn together in no more memory than training takes.

    So drawing never needs more than what follows; and it depends on the model and the options
    alone, not on what is free just now, for other batches are rounded otherwise.
    """
    fit = (one for one in DRAWN_TOGETHER if drawing_rows(one) * passes.drawing_row <= passes.step)
    return next(fit, DRAWN_TOGETHER[-1])


def passes_bytes(passes: TrainingFootprint) -> int:
    """Of the largest pass of all."""
    return max(drawing_rows(drawing_batch(passes)) * passes.drawing_row, passes.step)
