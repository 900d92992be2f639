import dataclasses
import weakref

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from core.errors import (
    DeviceOutOfMemory,
    ModelUnsupported,
    PictureNotFinite,
    SchedulerNotUsable,
    SizeNotDrawable,
)
from core.schedulers import SCHEDULERS
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.limits import BatchLimits
from diffusion.schedulers import SchedulerFactory
from diffusion.text_memory import TextMemory
from tests.same_latents import assert_same_latents

SOME = ["ddim", "pndm", "euler_a", "dpmpp_2m_sde_karras"]
"""One of each sort; test_families.py has them all."""


@pytest.fixture(scope="session")
def make_request(encoder):
    def make(key="a", prompt="a dog", *, negative="", **changes):
        request = DenoiseRequest(
            key=key,
            prompt=encoder.encode(prompt).embedding,
            negative=encoder.encode(negative).embedding,
            seed=7,
            num_inference_steps=5,
            guidance_scale=5.0,
            width_px=16,
            height_px=16,
        )
        return dataclasses.replace(request, **changes)

    return make


class RecordingUNet:
    """The tiny UNet; remembers how many rows each pass had, and can be short of memory."""

    def __init__(self, unet, *, room=10**6, no_room=torch.OutOfMemoryError):
        self._unet = unet
        self.room = room
        self.no_room = no_room
        self.rows = []
        self.config, self.dtype = unet.config, unet.dtype

    def __call__(self, sample, *arguments, **options):
        if len(sample) > self.room:
            raise self.no_room()
        self.rows.append(len(sample))
        return self._unet(sample, *arguments, **options)


@pytest.fixture
def make_denoiser(tiny):
    def make(*, unet=None, vae=None, **options):
        parts = unet or tiny.unet, vae or tiny.vae, SchedulerFactory(tiny.scheduler_config)
        return Denoiser(*parts, device="cpu", **options)

    return make


def run(denoiser):
    """Step until nothing is left: key -> latents."""
    latents = {}
    while len(denoiser):
        latents |= {finished.key: finished.latents for finished in denoiser.step()}
    return latents


@pytest.fixture
def alone(make_denoiser):
    def draw(request, **options):
        denoiser = make_denoiser(**options)
        denoiser.join(request)
        return run(denoiser)[request.key]

    return draw


@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("scheduler", SOME)
def test_alone_it_draws_what_diffusers_draws(
    tiny, make_denoiser, make_request, scheduler, guidance
):
    """The schedulers are made from the model's own configuration."""
    known = SCHEDULERS[scheduler]
    config = {k: v for k, v in tiny.scheduler_config.items() if not k.startswith("_")}
    pipeline = StableDiffusionPipeline(
        vae=tiny.vae,
        text_encoder=tiny.text_encoder,
        tokenizer=tiny.tokenizer,
        unet=tiny.unet,
        scheduler=getattr(diffusers, known.class_name).from_config({**config, **known.options}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "an axe",
        negative_prompt="the flower",
        num_inference_steps=6,
        guidance_scale=guidance,
        width=24,
        height=16,
        generator=torch.Generator().manual_seed(3),
    ).images[0]

    denoiser = make_denoiser()
    denoiser.join(
        make_request(
            scheduler=scheduler,
            prompt="an axe",
            negative="the flower",
            seed=3,
            num_inference_steps=6,
            guidance_scale=guidance,
            width_px=24,
            height_px=16,
        )
    )
    [picture] = denoiser.decode([run(denoiser)["a"]])

    assert picture.size == (24, 16)
    difference = np.asarray(picture, dtype=int) - np.asarray(expected, dtype=int)
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("scheduler", [None, *SOME])
def test_alone_the_same_request_gives_the_same_bits(alone, make_request, scheduler):
    request = make_request(scheduler=scheduler)
    assert torch.equal(alone(request), alone(request))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"num_inference_steps": 6},
        {"guidance_scale": 2.0},
        {"scheduler": "euler"},
        {"scheduler": "dpmpp_2m_karras"},
    ],
    ids=str,
)
def test_each_setting_of_a_request_matters(alone, make_request, change):
    difference = alone(make_request()) - alone(make_request(**change))
    assert difference.abs().max() > 1e-3


def test_where_the_texts_of_all_do_not_fit_fewer_are_drawn_at_once(
    tiny, make_denoiser, make_request, monkeypatch, no_room
):
    stacked = TextMemory.stacked

    def short_of_memory(self, embeddings, **options):
        if len(embeddings) > 4:
            raise no_room()
        return stacked(self, embeddings, **options)

    monkeypatch.setattr(TextMemory, "stacked", short_of_memory)
    unet = RecordingUNet(tiny.unet)
    denoiser = make_denoiser(unet=unet)
    for key in range(4):
        denoiser.join(make_request(key, num_inference_steps=2))

    assert set(run(denoiser)) == {0, 1, 2, 3}
    assert unet.rows == [4] * 4


def test_pictures_that_are_to_be_drawn_alone_have_the_same_bits_whatever_the_limits(
    tiny, make_denoiser, make_request, alone
):
    requests = [make_request(key, seed=key, alone=True) for key in range(8)]
    for most in (2, 3, 8, 32):
        unet = RecordingUNet(tiny.unet)
        denoiser = make_denoiser(unet=unet, limits=BatchLimits(most))
        for request in [*requests, make_request("other")]:
            denoiser.join(request)
        drawn = run(denoiser)

        assert set(unet.rows) == {2}
        assert all(torch.equal(drawn[one.key], alone(one)) for one in requests)


def test_rows_that_are_alone_may_have_a_unet_of_their_own(tiny, make_denoiser, make_request):
    """A compiled one gives other bits than the same model uncompiled."""
    shared, own = RecordingUNet(tiny.unet), RecordingUNet(tiny.unet)
    denoiser = make_denoiser(unet=shared, alone_unet=own)
    for key in range(3):
        denoiser.join(make_request(key, alone=key == 0))
    denoiser.step()

    assert (shared.rows, own.rows) == ([4], [2])


def test_an_unguided_picture_takes_one_row_and_a_guided_one_two(tiny, make_denoiser, make_request):
    unet = RecordingUNet(tiny.unet)
    denoiser = make_denoiser(unet=unet)
    denoiser.join(make_request("guided"))
    denoiser.step()
    denoiser.leave("guided")
    denoiser.join(make_request("unguided", guidance_scale=1.0, num_inference_steps=1))
    denoiser.step()

    assert unet.rows == [2, 1]


def test_rows_of_one_shape_share_a_pass_whatever_their_steps(tiny, make_denoiser, make_request):
    unet = RecordingUNet(tiny.unet)
    denoiser = make_denoiser(unet=unet)
    denoiser.join(make_request("early"))
    denoiser.step()
    denoiser.join(make_request("late", num_inference_steps=9, guidance_scale=2.0))
    denoiser.join(make_request("wide", width_px=32))
    denoiser.step()

    assert unet.rows == [2, 4, 2]
    assert denoiser.steps_done("early") == 2
    assert denoiser.steps_done("late") == 1


def test_who_leaves_is_gone_and_costs_nothing_more(tiny, make_denoiser, make_request):
    unet = RecordingUNet(tiny.unet)
    denoiser = make_denoiser(unet=unet)
    denoiser.join(make_request("a"))
    denoiser.join(make_request("b"))

    assert denoiser.leave("a")
    assert not denoiser.leave("a")
    assert set(run(denoiser)) == {"b"}
    assert max(unet.rows) == 2


def test_a_scheduler_may_take_more_passes_than_steps(make_denoiser, make_request):
    denoiser = make_denoiser()
    denoiser.join(make_request(num_inference_steps=5, scheduler="heun"))

    assert denoiser.steps_total("a") == 9
    for _ in range(8):
        assert denoiser.step() == []
    assert [finished.key for finished in denoiser.step()] == ["a"]


def test_out_of_memory_halves_the_passes_and_draws_the_same(
    tiny, make_denoiser, make_request, alone, no_room
):
    lowered = []
    limits = BatchLimits(remember=lambda *found: lowered.append(found))
    unet = RecordingUNet(tiny.unet, room=3, no_room=no_room)
    denoiser = make_denoiser(unet=unet, limits=limits)
    requests = [make_request(key, seed=key) for key in range(4)]
    for request in requests:
        denoiser.join(request)
    latents = run(denoiser)

    assert lowered == [((8, 8), 4), ((8, 8), 2)]
    for request in requests:
        assert_same_latents(latents[request.key], alone(request))


def test_each_size_has_a_limit_of_its_own(tiny, make_denoiser, make_request):
    unet = RecordingUNet(tiny.unet)
    limits = BatchLimits(found=lambda sides: {(8, 8): None, (8, 16): 2}[sides])
    denoiser = make_denoiser(unet=unet, limits=limits)
    for key in range(3):
        denoiser.join(make_request(key))
        denoiser.join(make_request(f"wide {key}", width_px=32))
    denoiser.step()

    assert unet.rows == [6, 2, 2, 2]


def test_a_pass_has_no_more_rows_than_are_worth_having_and_they_are_asked_for_once(
    tiny, make_denoiser, make_request
):
    asked = []

    def worthwhile(sides, waiting):
        asked.append((sides, waiting))
        return 4 if waiting > 4 else None

    unet = RecordingUNet(tiny.unet)
    denoiser = make_denoiser(unet=unet, limits=BatchLimits(worthwhile=worthwhile))
    denoiser.join(make_request("first"))
    denoiser.step()
    for key in range(2):
        denoiser.join(make_request(key))
    denoiser.step()
    denoiser.step()

    assert unet.rows == [2, 4, 2, 4, 2]
    assert asked == [((8, 8), 2), ((8, 8), 6)]


def test_a_picture_that_does_not_fit_alone_is_an_error_and_loses_no_other(
    tiny, make_denoiser, make_request, no_room
):
    unet = RecordingUNet(tiny.unet, room=1, no_room=no_room)
    denoiser = make_denoiser(unet=unet)
    denoiser.join(make_request("small", guidance_scale=1.0, num_inference_steps=1))
    denoiser.join(make_request("large"))

    with pytest.raises(DeviceOutOfMemory):
        denoiser.step()
    denoiser.leave("large")
    assert [finished.key for finished in denoiser.step()] == ["small"]


def test_a_schedulers_step_that_does_not_fit_has_a_name(make_denoiser, make_request, no_room):
    def full(*_, **__):
        raise no_room()

    denoiser = make_denoiser()
    denoiser.join(make_request())
    denoiser._rows["a"].scheduler.step = full
    with pytest.raises(DeviceOutOfMemory, match="scheduler"):
        denoiser.step()


def test_what_else_a_pass_raises_is_not_taken_for_memory(tiny, make_denoiser, make_request):
    def broken():
        return RuntimeError("CUDA error: an illegal memory access was encountered")

    denoiser = make_denoiser(unet=RecordingUNet(tiny.unet, room=1, no_room=broken))
    for key in range(2):
        denoiser.join(make_request(key))
    with pytest.raises(RuntimeError, match="illegal"):
        denoiser.step()
    with pytest.raises(RuntimeError, match="illegal"):
        make_denoiser(vae=CrampedVAE(tiny.vae, 1, broken)).decode([torch.zeros(4, 8, 8)] * 2)


def test_a_size_between_the_models_pixels_is_refused(make_denoiser, make_request):
    denoiser = make_denoiser()
    with pytest.raises(SizeNotDrawable, match="multiples of 4"):
        denoiser.join(make_request(width_px=18))
    assert len(denoiser) == 0


def test_a_scheduler_that_is_none_is_refused(tiny):
    for name in (None, "os", "UNet2DConditionModel"):
        with pytest.raises(ModelUnsupported, match="no scheduler"):
            SchedulerFactory({"_class_name": name})


@pytest.mark.parametrize(
    ("own", "request_", "says"),
    [
        ({}, {"scheduler": "lcm", "num_inference_steps": 51}, "at most 50 steps"),
        ({"_class_name": "EDMEulerScheduler"}, {"scheduler": "euler"}, "its own only"),
        ({"prediction_type": "sample"}, {"scheduler": "ddim"}, "its own only"),
        ({"_class_name": "LCMScheduler"}, {"num_inference_steps": 60}, "num_inference_steps"),
        ({"beta_schedule": "steep"}, {}, "steep"),
        ({"num_train_timesteps": None}, {}, "num_inference_steps"),
        ({"timestep_spacing": "wide"}, {}, "wide"),
    ],
    ids=[
        "steps",
        "another process",
        "another prediction",
        "steps of its own",
        "no schedule",
        "no numbers",
        "no spacing",
    ],
)
def test_a_scheduler_that_the_model_cannot_use_is_refused(tiny, make_request, own, request_, says):
    denoiser = Denoiser(
        tiny.unet, tiny.vae, SchedulerFactory(tiny.scheduler_config | own), device="cpu"
    )
    with pytest.raises(SchedulerNotUsable, match=says):
        denoiser.join(make_request(**request_))
    assert len(denoiser) == 0


def test_pictures_come_in_the_order_of_their_latents(make_denoiser, make_request):
    denoiser = make_denoiser()
    sizes = [(16, 16), (32, 16), (16, 16), (16, 24)]
    for key, (width, height) in enumerate(sizes):
        denoiser.join(make_request(key, seed=key, width_px=width, height_px=height))
    latents = run(denoiser)
    pictures = denoiser.decode([latents[key] for key in range(len(sizes))])

    assert [picture.size for picture in pictures] == sizes
    for key, picture in enumerate(pictures):
        [own] = denoiser.decode([latents[key]])
        assert abs(np.asarray(picture, dtype=int) - np.asarray(own, dtype=int)).max() <= 1


def test_nothing_to_decode_is_no_pictures(make_denoiser):
    assert make_denoiser().decode([]) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_no_picture_are_an_error_that_names_the_place(make_denoiser, value):
    good = torch.zeros(4, 8, 8)
    bad = torch.full((4, 8, 8), value)
    with pytest.raises(PictureNotFinite, match="picture 1 of 3"):
        make_denoiser().decode([good, bad, good])


class CrampedVAE:
    """The tiny VAE with room for a few pictures, or for none."""

    def __init__(self, vae, room, no_room=torch.OutOfMemoryError):
        self._vae, self._room, self._no_room = vae, room, no_room
        self.config, self.dtype = vae.config, vae.dtype
        self.tried = []
        self.failed = []
        self.held = 0
        """How often a pass began while the activations of a failed one were still there."""

    def decode(self, latents, **options):
        self.tried.append(len(latents))
        self.held += any(one() is not None for one in self.failed)
        activations = latents.clone()
        if len(latents) > self._room:
            self.failed.append(weakref.ref(activations))
            raise self._no_room()
        return self._vae.decode(latents, **options)


def test_pictures_that_cannot_be_decoded_together_are_decoded_alone(tiny, make_denoiser, no_room):
    latents = [torch.full((4, 8, 8), value) for value in (0.0, 0.5, 1.0)]
    cramped = make_denoiser(vae=CrampedVAE(tiny.vae, 1, no_room)).decode(latents)
    roomy = make_denoiser().decode(latents)

    for one, other in zip(cramped, roomy, strict=True):
        assert abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    with pytest.raises(DeviceOutOfMemory):
        make_denoiser(vae=CrampedVAE(tiny.vae, 0, no_room)).decode(latents)


def test_pictures_that_cannot_be_decoded_together_are_halved_and_nothing_is_tried_twice(
    tiny, make_denoiser
):
    vae = CrampedVAE(tiny.vae, room=3)
    denoiser = make_denoiser(vae=vae)
    square, wide = [torch.zeros(4, 8, 8)] * 7, [torch.zeros(4, 8, 12)] * 4
    denoiser.decode(square)
    denoiser.decode([*square, *wide])

    assert vae.tried == [7, 3, 3, 1, 3, 3, 1, 4, 2, 2]


def test_what_a_failed_pass_of_the_vae_has_computed_is_gone_before_the_next(
    tiny, make_denoiser, no_room
):
    vae = CrampedVAE(tiny.vae, 1, no_room)
    make_denoiser(vae=vae).decode([torch.zeros(4, 8, 8)] * 4)

    assert len(vae.failed) == 2
    assert vae.held == 0
