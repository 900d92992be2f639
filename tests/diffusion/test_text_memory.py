"""Keys and values are computed once, and never those of other text or weights."""

import copy
import gc
from dataclasses import replace

import pytest
import torch
from torch import nn

from diffusion.attention import text_projections
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.schedulers import SchedulerFactory
from diffusion.swapping import SwappableUNet
from diffusion.text_memory import RememberingLinear, TextMemory, _known, remember_projections


@pytest.fixture
def remembering(unet):
    remember_projections(unet)
    return unet


@pytest.fixture
def projected(monkeypatch):
    """Counts what is truly computed."""
    counted = []
    forward = nn.Linear.forward

    def count(self, value):
        if isinstance(self, RememberingLinear):
            counted.append(len(value))
        return forward(self, value)

    monkeypatch.setattr(nn.Linear, "forward", count)
    return counted


@pytest.fixture
def request_(encoder):
    def make(key, prompt="a dog", seed=7, steps=5):
        texts = encoder.encode(prompt).embedding, encoder.encode("").embedding
        return DenoiseRequest(key, *texts, seed, steps, 4.0, 16, 16)

    return make


def run(denoiser, *, until=100):
    latents = {}
    for _ in range(until):
        latents |= {done.key: done.latents for done in denoiser.step()}
    return latents


def test_while_nobody_joins_or_leaves_each_is_computed_once(
    tiny, remembering, projected, request_
):
    denoiser = Denoiser(
        remembering, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu"
    )
    count = len(text_projections(remembering))
    denoiser.join(request_("a"))
    run(denoiser, until=3)
    assert projected == [2] * count
    denoiser.join(request_("b", "an axe"))
    run(denoiser)
    # The second prompt; both have the same negative one. Nothing when the first one leaves.
    assert projected == [2] * count + [1] * count


def test_what_several_passes_knew_makes_up_the_next_in_any_order(remembering, projected):
    width = remembering.config.cross_attention_dim
    a, b, c, new, other = (torch.randn(77, width) for _ in range(5))
    memory = TextMemory("cpu", torch.float32)
    module = next(iter(text_projections(remembering).values()))
    for texts in ([a, b], [c]):
        module(memory.stacked(texts, alone=False))
    memory.end_step()
    projected.clear()
    together = module(memory.stacked([new, c, b, b, a, other], alone=False))

    assert projected == [2], "those that nobody knew"
    expected = torch.stack([module(text) for text in (new, c, b, b, a, other)])
    assert torch.allclose(together, expected, atol=1e-6)


def test_one_that_is_alone_takes_nothing_from_others(tiny, remembering, projected, encoder):
    dog, axe, nothing = (encoder.encode(text).embedding for text in ("a dog", "an axe", ""))
    denoiser = Denoiser(
        remembering, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu"
    )
    count = len(text_projections(remembering))
    denoiser.join(DenoiseRequest("a", dog, nothing, 7, 5, 4.0, 16, 16))
    denoiser.join(DenoiseRequest("b", axe, nothing, 8, 5, 4.0, 16, 16, alone=True))
    run(denoiser)
    assert projected == [2] * 2 * count


def test_one_that_is_alone_takes_nothing_even_of_its_own_texts(
    tiny, remembering, projected, request_
):
    """They may have been projected in company, and have other last bits for it."""
    denoiser = Denoiser(
        remembering, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu"
    )
    count = len(text_projections(remembering))
    request = request_("a")
    denoiser.join(request)
    denoiser.join(request_("b", "an axe"))
    run(denoiser, until=1)
    denoiser.leave("b")
    run(denoiser, until=1)
    assert projected == [4] * count

    denoiser.join(replace(request, key="strict", alone=True))
    run(denoiser, until=1)
    assert projected == [4] * count + [2] * count


def test_what_nobody_reads_any_longer_is_forgotten(tiny, remembering, request_):
    denoiser = Denoiser(
        remembering, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu"
    )
    before = len(_known)
    for number in range(5):
        denoiser.join(request_(number, f"number {number}", seed=number, steps=2 + number))
        run(denoiser, until=1)
        gc.collect()
        assert len(_known) == before + 1


@pytest.mark.parametrize("end", ["drawn", "left"])
def test_an_empty_batch_holds_none(tiny, remembering, request_, end):
    """It may be that of one of many models, and nobody may ask for that again."""
    denoiser = Denoiser(
        remembering, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu"
    )
    gc.collect()
    before = len(_known)
    denoiser.join(request_("a", steps=2))
    denoiser.step()
    assert len(_known) == before + 1
    if end == "drawn":
        denoiser.step()
    else:
        denoiser.leave("a")
    gc.collect()
    assert len(_known) == before


def test_the_pictures_are_the_same_bits(tiny, remembering, request_):
    drawn = []
    for unet in (tiny.unet, remembering):
        denoiser = Denoiser(unet, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu")
        denoiser.join(request_("a"))
        first = run(denoiser, until=2)
        denoiser.join(request_("b", "an axe", steps=2))
        drawn.append(first | run(denoiser))
        # The same key once more, for another prompt.
        denoiser.join(request_("a", "a flower"))
        drawn[-1]["again"] = run(denoiser)["a"]

    assert set(drawn[0]) == {"a", "b", "again"}
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])


def test_in_changing_company_they_are_the_same_within_rounding(tiny, remembering, request_):
    drawn = []
    for unet in (tiny.unet, remembering):
        denoiser = Denoiser(unet, tiny.vae, SchedulerFactory(tiny.scheduler_config), device="cpu")
        latents = {}
        for number in range(6):
            denoiser.join(request_(number, f"number {number}", seed=number, steps=2 + number % 3))
            latents |= run(denoiser, until=1)
        drawn.append(latents | run(denoiser))

    assert set(drawn[0]) == set(drawn[1]) == set(range(6))
    for key in drawn[0]:
        torch.testing.assert_close(drawn[0][key], drawn[1][key], rtol=0, atol=1e-5)


def test_weights_that_are_swapped_make_new_ones(tiny, remembering, request_):
    """Two models take turns with one UNet, while neither batch changes."""
    plain = copy.deepcopy(tiny.unet)
    name = next(iter(text_projections(plain)))
    changed = {f"{name}.weight": plain.get_parameter(f"{name}.weight") + 0.5}
    shared = SwappableUNet(remembering)
    deltas = [shared.prepared({}), shared.prepared(changed)]
    parts = tiny.vae, SchedulerFactory(tiny.scheduler_config)
    batches = [
        Denoiser(remembering, *parts, device="cpu", wear=lambda delta=delta: shared.wear(delta))
        for delta in deltas
    ]
    together = []
    for batch in batches:
        batch.join(request_("a"))
    for _ in range(5):
        together += [done.latents for batch in batches for done in batch.step()]

    for tensors, latents in zip(({}, changed), together, strict=True):
        own = copy.deepcopy(plain)
        own.load_state_dict(tensors, strict=False)
        denoiser = Denoiser(own, *parts, device="cpu")
        denoiser.join(request_("a"))
        assert torch.equal(run(denoiser)["a"], latents)
    assert not torch.equal(*together)


def test_names_and_copies_of_the_unet_are_as_before(unet, remembering):
    again = copy.deepcopy(remembering)
    assert all(isinstance(one, RememberingLinear) for one in text_projections(again).values())
    assert list(again.state_dict()) == list(unet.state_dict())
