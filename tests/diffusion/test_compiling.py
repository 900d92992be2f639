"""Batches padded to buckets draw the same, and nothing is compiled while they are drawn."""

import copy
import dataclasses

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffusion import compiling
from diffusion.compiling import CompiledUNet
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.loading import load_base
from diffusion.preparing import prepare_to_draw
from diffusion.rehearsing import rehearsal
from diffusion.schedulers import SchedulerFactory
from diffusion.swapping import NOTHING, SwappableUNet
from tests.tiny_model import make_model

SIDES = (8, 8)


class CountingBackend:
    """Compiles to what torch runs anyway, and counts."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(scope="module")
def backend():
    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch:
        counting = CountingBackend()
        patch.setattr(compiling, "BACKEND", counting)
        yield counting
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def compiled(tiny, backend):
    """Of the tiny UNet, for 2 and 6 rows of 16 x 16 pixels."""
    unet = copy.deepcopy(tiny.unet)
    prepare_to_draw(dataclasses.replace(tiny, unet=unet))
    compiled = CompiledUNet(unet, [6, 2])
    compiled.compile_for(SIDES)
    assert backend.graphs == 2
    return compiled


@pytest.fixture
def make_request(encoder):
    def make(key, **changes):
        texts = encoder.encode(f"a dog {key}").embedding, encoder.encode("").embedding
        return dataclasses.replace(DenoiseRequest(key, *texts, key, 4, 4.0, 16, 16), **changes)

    return make


def drawn(unet, parts, requests):
    denoiser = Denoiser(unet, parts.vae, SchedulerFactory(parts.scheduler_config), device="cpu")
    for request in requests:
        denoiser.join(request)
    latents = {}
    while len(denoiser):
        latents |= {done.key: done.latents for done in denoiser.step()}
    return latents


def agree(found, expected):
    assert found.keys() == expected.keys()
    for key, latents in expected.items():
        torch.testing.assert_close(found[key], latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([{}, {"num_inference_steps": 6}, {"num_inference_steps": 2}], id="guided"),
        pytest.param(
            [{"guidance_scale": 1.0, "num_inference_steps": n} for n in (1, 2, 4)], id="not"
        ),
        pytest.param([{}] * 4, id="more than the largest bucket"),
        pytest.param([{"width_px": 24}], id="another size"),
    ],
)
def test_batches_that_come_and_go_draw_what_they_draw_uncompiled(
    tiny, compiled, backend, make_request, requests
):
    wanted = [make_request(key, **changes) for key, changes in enumerate(requests)]
    before = backend.graphs

    agree(drawn(compiled, tiny, wanted), drawn(tiny.unet, tiny, wanted))
    assert backend.graphs == before


def test_a_padded_batch_that_falls_back_to_the_uncompiled_unet_draws_the_same(
    tiny, compiled, make_request, monkeypatch
):
    """Guided pictures share rows there, and those of a padded batch have other halves."""
    monkeypatch.setattr(compiled, "_compiled", compiled._unet)
    wanted = [make_request(key) for key in range(2)]

    agree(drawn(compiled, tiny, wanted), drawn(tiny.unet, tiny, wanted))


def test_weights_that_are_swapped_in_place_are_those_of_the_next_picture(
    tiny, compiled, backend, make_request
):
    swappable = SwappableUNet(compiled._unet)
    other = swappable.prepared({"conv_out.bias": torch.full((4,), 0.5)})
    before, pictures = backend.graphs, []
    for delta in (NOTHING, other, NOTHING):
        swappable.wear(delta)
        pictures.append(drawn(compiled, tiny, [make_request(1)]))
        agree(pictures[-1], drawn(compiled._unet, tiny, [make_request(1)]))

    assert backend.graphs == before
    assert torch.equal(pictures[0][1], pictures[2][1])
    assert (pictures[0][1] - pictures[1][1]).abs().max() > 0.1


def test_models_of_one_config_share_graphs_and_nothing_else(tmp_path, compiled, backend):
    parts = load_base(make_model(tmp_path / "other", seed=1), None)
    prepare_to_draw(parts)
    other = CompiledUNet(parts.unet, [2])
    other.compile_for(SIDES)
    empty = parts.prompt_encoder().encode("").embedding
    request = DenoiseRequest(1, empty, empty, 1, 3, 4.0, 16, 16)

    agree(drawn(other, parts, [request]), drawn(parts.unet, parts, [request]))
    assert backend.graphs == 2


def test_sdxl_is_compiled_with_its_pooled_text_and_sizes(tmp_path, backend):
    parts = load_base(make_model(tmp_path / "xl", family="sdxl"), None)
    compiled = CompiledUNet(parts.unet, [4])
    before = backend.graphs
    compiled.compile_for(SIDES)
    text = parts.prompt_encoder().encode("a dog")
    texts = text.embedding, text.embedding
    pooled = text.pooled, text.pooled
    requests = [DenoiseRequest(key, *texts, key, 3, 4.0, 16, 16, *pooled) for key in range(2)]

    agree(drawn(compiled, parts, requests), drawn(parts.unet, parts, requests))
    assert backend.graphs == before + 1


def test_to_machine_code_it_computes_the_same_after_a_swap_too(monkeypatch):
    """A UNet of one block: making code of the tiny one takes minutes."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    block = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=block[:1],
        up_block_types=block[1:],
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    unet.eval().requires_grad_(False)
    compiled = CompiledUNet(unet, [2])
    compiled.compile_for(SIDES)
    swappable = SwappableUNet(unet)
    for delta in (NOTHING, swappable.prepared({"conv_in.bias": torch.ones(8)})):
        swappable.wear(delta)
        with torch.inference_mode():
            found, expected = (rehearsal(one, SIDES, 1, "cpu")() for one in (compiled, unet))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
