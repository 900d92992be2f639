"""The models of a run draw what can be told apart."""

import itertools

import numpy as np
import pytest
import torch

from core.importing import import_base
from core.installation import open_registry
from core.settings import Settings
from core.signing import Signer
from diffusion.denoise_request import DenoiseRequest
from tests.chaos.clients import PROMPTS, STEPS
from tests.chaos.variants import CHANGED, MAPPED, MODEL, add_variants
from tests.tiny_model import SIDE_PX, make_model
from worker.decoding import decoded
from worker.shelf import Shelf
from worker.variant import Variant

VISIBLE = 20
"""Of 255, at the pixel that differs most."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("made")
    settings = Settings(
        _env_file=None, data_dir=tmp_path_factory.mktemp("data"), serve_unerased_base=True
    )
    signer = Signer.load_or_create(settings.keys_dir)
    settings.models_dir.mkdir(parents=True)
    registry = open_registry(settings)
    add_variants(import_base(make_model(made), MODEL, registry, signer), registry, signer)
    return Shelf(registry, device=torch.device("cpu"), dtype=torch.float32)


def drawn(variant: Variant) -> np.ndarray:
    """(n, h, w, 3): of each prompt, with the fewest and the most steps."""
    denoiser, pictures = variant.denoiser, {}
    denoiser.wear()
    for key in itertools.product(PROMPTS, (STEPS[0], STEPS[-1])):
        prompt, steps = key
        denoiser.join(
            DenoiseRequest.of(
                *(key, variant.embed(prompt), variant.embed("")),
                seed=0,
                num_inference_steps=steps,
                guidance_scale=7.5,
                width_px=SIDE_PX,
                height_px=SIDE_PX,
            )
        )
    while len(denoiser):
        done = denoiser.step()
        pictures |= {one.key: p for one, p in zip(done, decoded(denoiser, done), strict=True)}
    return np.stack([np.asarray(pictures[key], np.int16) for key in sorted(pictures)])


def test_each_model_draws_other_pictures_than_the_others(shelf):
    pictures = {one: drawn(shelf.variant(one)) for one in (MODEL, MAPPED, CHANGED)}

    for one, other in itertools.combinations(pictures, 2):
        differences = np.abs(pictures[one] - pictures[other]).max(axis=(1, 2, 3))
        assert differences.min() > VISIBLE, (one, other)


def test_one_shares_the_weights_of_the_base_and_one_has_its_own(shelf):
    base, mapped, changed = (shelf.variant(one) for one in (MODEL, MAPPED, CHANGED))

    assert mapped.denoiser is base.denoiser
    assert changed.denoiser is not base.denoiser
