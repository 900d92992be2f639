"""What is foreseen of a picture."""

import diffusers
import numpy as np
import pytest
import torch

from core.schedulers import OWN_ONLY
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.limits import BatchLimits
from diffusion.loading import load_base
from diffusion.previews import predicted, to_previews
from diffusion.schedulers import SchedulerFactory
from tests.tiny_model import FAMILIES, make_model

SCHEDULERS = ["DDIMScheduler", "EulerDiscreteScheduler", "DDPMScheduler"]
"""Those of diffusers that tell what they foresee."""


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_is_what_diffusers_foresees(tiny, name, prediction_type):
    config = tiny.scheduler_config | {"prediction_type": prediction_type}
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(7)
    x, output = (torch.randn(1, 4, 8, 8) for _ in range(2))
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, timestep)
        told = scheduler.step(output, timestep, x, generator=torch.Generator())
        foreseen = predicted(seen, output, timestep, scheduler)
        torch.testing.assert_close(foreseen, told.pred_original_sample, rtol=1e-3, atol=1e-3)
        x = told.prev_sample


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_preview_is_nearly_the_picture(family, tmp_path):
    """At the last step no noise is left to foresee."""
    parts = load_base(make_model(tmp_path / family, family=family), None)
    encoded = parts.prompt_encoder().encode("a dog")
    denoiser = Denoiser(
        parts.unet, parts.vae, SchedulerFactory(parts.scheduler_config), device="cpu"
    )
    request = DenoiseRequest(
        key="a",
        prompt=encoded.embedding,
        negative=encoded.embedding,
        pooled=encoded.pooled,
        negative_pooled=encoded.pooled,
        seed=1,
        num_inference_steps=12,
        guidance_scale=2.0,
        width_px=16,
        height_px=16,
        watched=True,
    )
    denoiser.join(request)
    for _ in range(11):
        denoiser.step()
    [preview] = denoiser.previews(["a"])
    [done] = denoiser.step()
    [picture] = denoiser.decode([done.latents])

    assert preview.size == picture.size
    difference = np.asarray(preview, dtype=int) - np.asarray(picture, dtype=int)
    assert abs(difference).mean() < 20


@pytest.mark.parametrize("name", sorted(OWN_ONLY))
def test_a_scheduler_that_cannot_tell_shows_nothing_and_draws(tiny, encoder, name):
    config = tiny.scheduler_config | {"_class_name": name}
    text = encoder.encode("a dog")
    denoiser = Denoiser(tiny.unet, tiny.vae, SchedulerFactory(config), device="cpu")
    request = DenoiseRequest.of(
        *("a", text, text),
        seed=1,
        num_inference_steps=3,
        guidance_scale=2.0,
        width_px=16,
        height_px=16,
        watched=True,
    )
    denoiser.join(request)
    denoiser.step()
    shown = denoiser.previews(["a"])
    done = [one for _ in range(2) for one in denoiser.step()]

    assert len(shown) == name.endswith("ParallelScheduler")
    assert len(denoiser.decode([one.latents for one in done])) == 1


@pytest.mark.parametrize(
    ("latents", "pixels"),
    [((8, 8), (16, 16)), ((64, 64), (128, 128)), ((200, 100), (64, 128)), ((4, 900), (128, 2))],
    ids=str,
)
def test_large_pictures_are_shown_small(tiny, latents, pixels):
    [preview] = to_previews(tiny.vae, [torch.randn(4, *latents)], 2, BatchLimits())
    assert preview.size == pixels
