"""Lean blocks compute what diffusers' own do, to the rounding, and write to nothing they read."""

import copy
import dataclasses

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D

from core.settings import SHIPPED_MODELS
from diffusion.lean_blocks import LeanAttention, LeanResnet, make_lean
from diffusion.loading import load_base
from diffusion.preparing import prepare_to_draw
from diffusion.rehearsing import TEXT_TOKENS
from diffusion.text_memory import RememberingLinear, TextMemory, remember_projections
from tests.tiny_model import FAMILIES, make_model

NEAR = 1e-5
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(scope="module", params=FAMILIES)
def plain(request, tmp_path_factory):
    return load_base(
        make_model(tmp_path_factory.mktemp("lean") / request.param, family=request.param), None
    )


@pytest.fixture(params=LAYOUTS, ids=["contiguous", "channels_last"])
def lean(request, plain):
    """The same model as a worker has it."""
    made = dataclasses.replace(plain, unet=copy.deepcopy(plain.unet), vae=copy.deepcopy(plain.vae))
    for module in (made.unet, made.vae):
        module.to(memory_format=request.param)
    prepare_to_draw(made)
    return made


def read_by(unet, rows: int, *, tokens: int = TEXT_TOKENS, side: int = 8):
    """What a pass of so many rows reads, at random."""
    generator = torch.Generator().manual_seed(rows)
    config = unet.config

    def some(*shape):
        return torch.randn(*shape, generator=generator)

    added = None
    if config.addition_embed_type:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": some(rows, pooled), "time_ids": some(rows, 6)}
    return {
        "sample": some(rows, config.in_channels, side, side),
        "timestep": torch.linspace(1, 999, rows),
        "encoder_hidden_states": some(rows, tokens, config.cross_attention_dim),
        "added_cond_kwargs": added,
    }


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("tokens", [TEXT_TOKENS, 80, 2 * TEXT_TOKENS])
def test_a_pass_is_that_of_the_plain_unet(plain, lean, rows, tokens):
    given = read_by(plain.unet, rows, tokens=tokens)
    with torch.inference_mode():
        expected = plain.unet(**given).sample
        found = lean.unet(**given).sample

    assert expected.abs().max() > 0.1
    assert (found - expected).abs().max() <= NEAR * expected.abs().max()


def test_in_half_precision_it_is_as_near_as_that_is(plain):
    given = read_by(plain.unet, 2)
    with torch.inference_mode():
        expected = plain.unet(**given).sample
    halves = dataclasses.replace(
        plain,
        unet=copy.deepcopy(plain.unet).bfloat16(),
        vae=copy.deepcopy(plain.vae).bfloat16(),
    )
    given = {
        name: one.bfloat16() if isinstance(one, torch.Tensor) else one
        for name, one in given.items()
    }
    if given["added_cond_kwargs"]:
        given["added_cond_kwargs"] = {
            name: one.bfloat16() for name, one in given["added_cond_kwargs"].items()
        }
    with torch.inference_mode():
        by_diffusers = (halves.unet(**given).sample.float() - expected).abs().max()
        prepare_to_draw(halves)
        by_ours = (halves.unet(**given).sample.float() - expected).abs().max()

    assert 0 < by_ours <= 1.5 * by_diffusers


def test_remembered_texts_are_padded_and_read_as_if_they_were_not(plain, lean):
    given = read_by(plain.unet, 3)
    memory = TextMemory("cpu", torch.float32)
    with torch.inference_mode():
        expected = plain.unet(**given).sample
        texts = list(given["encoder_hidden_states"])
        for _ in range(2):  # made, then remembered
            given["encoder_hidden_states"] = stacked = memory.stacked(texts, alone=False)
            found = lean.unet(**given).sample
            assert (found - expected).abs().max() <= NEAR * expected.abs().max()
        projection = next(one for one in lean.unet.modules() if type(one) is RememberingLinear)
        padded = projection(stacked)

    assert padded.shape[1] == 80
    assert torch.equal(padded[:, TEXT_TOKENS:], torch.zeros_like(padded[:, TEXT_TOKENS:]))


def test_a_decoding_is_that_of_the_plain_vae(plain, lean):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = plain.vae.decode(latents).sample
        found = lean.vae.decode(latents).sample

    assert (found - expected).abs().max() <= NEAR * expected.abs().max()


def test_nothing_that_is_read_is_written_to(lean):
    given = read_by(lean.unet, 2)
    latents = torch.randn(1, 4, 8, 8)
    before = {name: one.clone() for name, one in given.items() if isinstance(one, torch.Tensor)}
    weights = {name: one.clone() for name, one in lean.unet.state_dict().items()}
    latents_before = latents.clone()
    with torch.inference_mode():
        first = lean.unet(**given).sample
        lean.vae.decode(latents)
        again = lean.unet(**given).sample

    assert torch.equal(first, again)
    assert all(torch.equal(given[name], one) for name, one in before.items())
    assert torch.equal(latents, latents_before)
    assert all(torch.equal(lean.unet.state_dict()[name], one) for name, one in weights.items())


def test_parameters_and_their_names_stay(plain, lean):
    for made, kept in ((lean.unet, plain.unet), (lean.vae, plain.vae)):
        assert isinstance(made, UNet2DConditionModel | AutoencoderKL)
        assert {name: one.shape for name, one in made.named_parameters()} == {
            name: one.shape for name, one in kept.named_parameters()
        }


def test_every_block_of_the_shipped_model_is_lean():
    """With an option that is not known here they would stay as they were: slower, and right."""
    parts = load_base(SHIPPED_MODELS / "emoji", None)
    prepare_to_draw(parts)
    kinds = {type(one) for one in (*parts.unet.modules(), *parts.vae.decoder.modules())}

    assert ResnetBlock2D not in kinds
    assert {LeanResnet, LeanAttention} <= kinds
    assert [type(one) for one in parts.unet.modules() if type(one) is Attention] == []


class TestOfOtherKinds:
    """What is not known here computes as it did."""

    def unchanged(self, **config):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            cross_attention_dim=24,
            attention_head_dim=2,
            layers_per_block=1,
            **{
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            }
            | config,
        ).eval()
        given = read_by(unet, 2)
        with torch.inference_mode():
            expected = unet(**given).sample
            remember_projections(unet)
            make_lean(unet)
            found = unet(**given).sample
        assert (found - expected).abs().max() <= NEAR * expected.abs().max()
        return {type(one).__name__ for one in unet.modules()}

    def test_times_that_scale(self):
        kinds = self.unchanged(resnet_time_scale_shift="scale_shift")
        assert "ResnetBlock2D" in kinds
        assert "LeanTransformer" in kinds

    def test_a_sum_that_is_scaled(self):
        kinds = self.unchanged(mid_block_scale_factor=2.0)
        assert {"ResnetBlock2D", "LeanResnet"} <= kinds

    def test_other_activations(self):
        kinds = self.unchanged(act_fn="gelu")
        assert "LeanResnet" not in kinds

    def test_attention_to_texts_alone(self):
        kinds = self.unchanged(only_cross_attention=True)
        assert "BasicTransformerBlock" in kinds

    def test_heads_of_simple_cross_attention(self):
        kinds = self.unchanged(
            down_block_types=("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
            up_block_types=("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        )
        assert {"Attention", "ResnetBlock2D"} <= kinds


def test_masks_are_refused_rather_than_left_out(lean):
    given = read_by(lean.unet, 1)
    with pytest.raises(AssertionError, match="encoder_attention_mask"):
        lean.unet(**given, encoder_attention_mask=torch.ones(1, TEXT_TOKENS))
