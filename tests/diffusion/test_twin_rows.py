"""What both rows of a guided picture share is computed once, and comes out as if it were not."""

import copy

import pytest
import torch

from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.loading import load_base
from diffusion.schedulers import SchedulerFactory
from diffusion.twin_rows import before_text, share_twins, twin_rows
from tests.same_latents import assert_same_latents
from tests.tiny_model import make_model


@pytest.fixture
def sharing(tiny):
    unet = copy.deepcopy(tiny.unet)
    share_twins(unet)
    return unet


@pytest.fixture
def rows_of(sharing):
    """Part of the UNet -> the rows that each of its passes had."""
    counted = {}
    for name, module in sharing.named_modules():

        def count(_, args, name=name):
            counted.setdefault(name, []).append(len(args[0]))

        if name in ("down_blocks.0.resnets.0.conv1", "conv_out"):
            module.register_forward_pre_hook(count)
    return counted


def drawn(unet, parts, guidance_scales):
    encode = parts.prompt_encoder().encode
    denoiser = Denoiser(unet, parts.vae, SchedulerFactory(parts.scheduler_config), device="cpu")
    for key, scale in enumerate(guidance_scales):
        prompt, negative = encode(f"a dog {key}"), encode("the flower")
        denoiser.join(
            DenoiseRequest.of(
                *(key, prompt, negative),
                seed=key,
                num_inference_steps=3,
                guidance_scale=scale,
                width_px=16,
                height_px=16,
            )
        )
    latents = {}
    while len(denoiser):
        latents |= {done.key: done.latents for done in denoiser.step()}
    return latents


def test_a_guided_pass_computes_one_row_of_each_picture_until_text_is_read(tiny, sharing, rows_of):
    drawn(sharing, tiny, [4.0, 4.0, 4.0])
    assert rows_of["down_blocks.0.resnets.0.conv1"] == [3] * 3
    assert rows_of["conv_out"] == [6] * 3


def test_rows_without_guidance_are_nobodys_twins(tiny, sharing, rows_of):
    drawn(sharing, tiny, [1.0, 1.0])
    assert rows_of["down_blocks.0.resnets.0.conv1"] == rows_of["conv_out"] == [2] * 3


def test_pictures_are_those_of_a_unet_that_computes_every_row(tiny, sharing):
    scales = [4.0, 7.0, 1.0, 1.0]
    found, expected = drawn(sharing, tiny, scales), drawn(tiny.unet, tiny, scales)
    for key, latents in expected.items():
        assert_same_latents(found[key], latents)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_nothing_that_is_shared_has_read_text(family, tmp_path):
    """The texts of the two halves differ wildly, and no shared part tells them apart."""
    unet = load_base(make_model(tmp_path / family, family=family), None).unet
    seen = {}
    for name, module in unet.named_modules():
        if module in before_text(unet):
            module.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, out))
    half = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text = torch.randn(4, 77, unet.config.cross_attention_dim) * 10
    unet(torch.cat([half, half]), torch.tensor([7, 700, 7, 700]), encoder_hidden_states=text)

    assert set(seen) == {
        "conv_in",
        "down_blocks.0.resnets.0",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1",
    }
    for output in seen.values():
        first, second = output.chunk(2)
        torch.testing.assert_close(first, second)


def test_blocks_without_attention_are_shared_whole(tmp_path):
    """As far as the family allows: SDXL's residual blocks read the pooled text."""
    unet = load_base(make_model(tmp_path / "xl", family="sdxl"), None).unet
    assert before_text(unet) == []
    unet.register_to_config(addition_embed_type=None)
    first, second = unet.down_blocks
    assert before_text(unet) == [
        unet.conv_in,
        *first.resnets,
        *first.downsamplers,
        second.resnets[0],
        second.attentions[0].transformer_blocks[0].attn1,
    ]


def test_asked_twice_it_halves_once(tiny, sharing, rows_of):
    share_twins(sharing)
    drawn(sharing, tiny, [4.0, 4.0])
    assert rows_of["down_blocks.0.resnets.0.conv1"] == [2] * 3


def test_an_error_within_a_pass_ends_what_is_said_of_its_rows(sharing):
    with pytest.raises(ZeroDivisionError), twin_rows():
        raise ZeroDivisionError
    whole = sharing.conv_in(torch.zeros(2, 4, 8, 8))
    assert len(whole) == 2
