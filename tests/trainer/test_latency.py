"""What inference costs is measured on both sides, and changes nothing."""

import pytest
import torch

from diffusion.erasure import Erasure
from trainer.latency import map_seconds, step_seconds
from trainer.trce.texts import Texts


@pytest.fixture
def texts(encoder):
    return Texts.read(encoder, ["", "an axe"], size_px=16)


def test_a_model_without_a_map_maps_nothing():
    assert map_seconds(Erasure(), "cpu") == 0.0


@pytest.mark.parametrize("pooled", [None, torch.eye(20)], ids=["sd1", "sdxl"])
def test_mapping_takes_time_and_a_wider_map_takes_more(pooled):
    narrow = map_seconds(Erasure(torch.eye(24), pooled_map=pooled), "cpu")
    wide = map_seconds(Erasure(torch.eye(2048), pooled_map=pooled), "cpu")

    assert 0 < narrow < wide


def test_a_step_is_timed_with_each_sides_tensors_and_left_with_the_last(unet, texts):
    name, weight = next((n, p) for n, p in unet.named_parameters() if ".attn1." in n)
    changed = {name: weight.detach() + 1}
    plain, erased = step_seconds(unet, texts, {name: weight.detach().clone()}, changed)

    assert plain > 0
    assert erased > 0
    assert dict(unet.named_parameters())[name].equal(changed[name])


def test_each_side_is_asked_the_same_in_turn(unet, texts, monkeypatch):
    asked = []

    def predicted(model, latents, timestep, given):
        asked.append(dict(model.named_parameters())["conv_in.bias"][0].item())
        return latents

    monkeypatch.setattr("trainer.latency.predict", predicted)
    sides = [{"conv_in.bias": torch.full_like(unet.conv_in.bias, value)} for value in (1.0, 2.0)]
    step_seconds(unet, texts, *sides)

    assert asked == [1.0, 2.0] * 6
