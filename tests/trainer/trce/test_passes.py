"""What the passes of stage 2 take, and how many trajectories are drawn together."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.specs import SteeringOptions
from diffusion.attention import parameter_names
from diffusion.footprint import Living
from diffusion.rehearsing import rehearsal
from diffusion.training_footprint import measure_training
from trainer.trce import passes as module
from trainer.trce.passes import (
    TRAINED,
    drawing_batch,
    drawing_rows,
    footprint,
    passes_bytes,
    training_rows,
)

CONFIG = json.loads((Path(__file__).parents[3] / "models/emoji/unet/config.json").read_text())


def counted(*, rows: int, autocast: bool, recomputed: bool) -> int:
    """What a real step of a real UNet has alive at most."""
    unet = UNet2DConditionModel.from_config(CONFIG).requires_grad_(False)
    for name in (name for group in TRAINED for name in parameter_names(unet, group)):
        unet.get_parameter(name).requires_grad_(True)
    if recomputed:
        unet.enable_gradient_checkpointing()
    side = unet.config.sample_size
    living = Living(unet.parameters())
    with living, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rehearsal(unet, (side, side), rows, "cpu")().float().square().mean().backward()
    return living.peak


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("recomputed", [False, True])
def test_it_is_what_a_real_step_takes(autocast, recomputed):
    how = {"autocast": autocast, "recomputed": recomputed}
    computed = measure_training(CONFIG, TRAINED, rows=6, **how)

    assert computed.step == pytest.approx(counted(rows=6, **how), rel=0.2)


@pytest.mark.parametrize(
    "options",
    [{}, {"batch": 1, "anchors": 1}, {"batch": 1, "anchors": 4, "gradient_checkpointing": True}],
    ids=str,
)
def test_drawing_takes_no_more_than_training(monkeypatch, options):
    monkeypatch.setattr(module, "LITTLE_BYTES", 0)
    options = SteeringOptions(**options)
    passes, batch = footprint(CONFIG, options), drawing_batch(CONFIG, options)

    assert batch == 1 or drawing_rows(batch) * passes.drawing_row <= passes.step
    assert batch == 16 or drawing_rows(2 * batch) * passes.drawing_row > passes.step
    assert passes_bytes(CONFIG, options) >= passes.step


def test_where_a_row_takes_little_nothing_is_computed(monkeypatch):
    monkeypatch.setattr(module, "footprint", lambda *_: pytest.fail("computed"))
    assert drawing_batch(CONFIG, SteeringOptions(batch=1, anchors=1)) == 16


def test_what_a_row_surely_needs_is_more_than_it_takes():
    passes = footprint(CONFIG, SteeringOptions(batch=1, anchors=1))
    assert passes.drawing_row < module._surely_enough(CONFIG)


def test_the_larger_pass_of_a_step_counts():
    """Both hinges have two rows a point; parts and processes share them."""
    assert training_rows(SteeringOptions(batch=8, anchors=4)) == 16
    assert training_rows(SteeringOptions(batch=1, anchors=9)) == 9
    assert training_rows(SteeringOptions(batch=8, anchors=4, accumulation=3)) == 6
    assert training_rows(SteeringOptions(batch=8, anchors=4), processes=4) == 4
