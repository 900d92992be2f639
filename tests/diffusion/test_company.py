"""A picture does not depend on who shares its batch; a strict one has the same bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schedulers import SCHEDULERS
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.limits import BatchLimits
from diffusion.loading import load_base
from diffusion.preparing import prepare_to_draw
from diffusion.schedulers import SchedulerFactory
from tests.same_latents import assert_same_latents
from tests.tiny_model import FAMILIES, make_model

PROMPTS = ["a dog", "an axe", "a zebra in the photo", ""]
NOBODY_LEFT = 30

arrivals = st.lists(
    st.fixed_dictionaries(
        {
            "joins": st.integers(0, 6),  # before this step
            "leaves": st.one_of(st.none(), st.none(), st.integers(1, 6)),
            "prompt": st.sampled_from(PROMPTS),
            "negative": st.sampled_from(["", "the flower"]),
            "alone": st.sampled_from([False, False, True]),
            "watched": st.booleans(),
            "seed": st.integers(0, 5),
            "num_inference_steps": st.integers(1, 6),
            "guidance_scale": st.sampled_from([0.0, 1.0, 2.5, 7.0]),
            "size": st.sampled_from([(16, 16), (16, 24)]),
            "scheduler": st.sampled_from([None, *SCHEDULERS]),
        }
    ),
    min_size=2,
    max_size=6,
)


@pytest.fixture(scope="module", params=FAMILIES)
def parts(request, tmp_path_factory):
    """As a worker has them: the UNet remembers texts, and what both rows of a picture share."""
    folder = tmp_path_factory.mktemp("company") / request.param
    loaded = load_base(make_model(folder, family=request.param), None)
    prepare_to_draw(loaded)
    return loaded


@pytest.fixture(scope="module")
def encoder(parts):
    """Who asks for the same prompt is given the same tensors."""
    return parts.prompt_encoder()


def request_of(key, arrival, encoder):
    names = ("seed", "num_inference_steps", "guidance_scale", "scheduler", "alone", "watched")
    texts = (encoder.encode(arrival[name]) for name in ("prompt", "negative"))
    width_px, height_px = arrival["size"]
    fields = {name: arrival[name] for name in names}
    return DenoiseRequest.of(key, *texts, width_px=width_px, height_px=height_px, **fields)


@settings(max_examples=20, deadline=None)
@given(arrivals=arrivals, max_unet_rows=st.sampled_from([2, 3, 32]))
def test_a_picture_does_not_depend_on_who_shares_its_batch(
    parts, encoder, arrivals, max_unet_rows
):
    """Whatever the schedulers, steps, guidance, sizes and ages of those who come and go."""

    def new(most=max_unet_rows):
        config, limits = parts.scheduler_config, BatchLimits(most)
        return Denoiser(
            parts.unet, parts.vae, SchedulerFactory(config), device="cpu", limits=limits
        )

    requests = [request_of(key, arrival, encoder) for key, arrival in enumerate(arrivals)]
    shared, together, gone = new(), {}, set()
    for now in range(NOBODY_LEFT):
        for request, arrival in zip(requests, arrivals, strict=True):
            if arrival["joins"] == now:
                shared.join(request)
            if arrival["leaves"] == now and shared.leave(request.key):
                gone.add(request.key)
        together |= {finished.key: finished.latents for finished in shared.step()}

    assert not len(shared)
    assert set(together) | gone == {request.key for request in requests}
    for request in requests:
        if request.key not in together:
            continue
        own, expected = new(32), []
        own.join(request)
        while not expected:
            expected = own.step()
        if request.alone:
            assert torch.equal(together[request.key], expected[0].latents)
        else:
            assert_same_latents(together[request.key], expected[0].latents)


def test_of_every_scheduler_a_row_alone_equals_the_row_in_company(parts, encoder):
    """All of them in one batch; whatever they draw is finite."""
    shared = {
        "prompt": "a dog",
        "negative": "",
        "alone": False,
        "watched": False,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "size": (16, 16),
    }
    requests = {
        name: request_of(name, shared | {"scheduler": name, "seed": seed}, encoder)
        for seed, name in enumerate(SCHEDULERS)
    }

    def drawn(asked):
        denoiser = Denoiser(
            parts.unet, parts.vae, SchedulerFactory(parts.scheduler_config), device="cpu"
        )
        for request in asked:
            denoiser.join(request)
        found = {}
        while len(denoiser):
            found |= {finished.key: finished.latents for finished in denoiser.step()}
        return found

    together = drawn(requests.values())
    assert set(together) == set(SCHEDULERS)
    for name, request in requests.items():
        assert_same_latents(together[name], drawn([request])[name], name)
