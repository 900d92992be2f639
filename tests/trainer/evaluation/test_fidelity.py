"""Distances between the pictures of two models, on features that are made up."""

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from core.settings import SHIPPED_MODELS
from diffusion.likeness import Likeness
from trainer.evaluation.fidelity import (
    LEAST_KERNEL,
    NOTHING,
    fidelity,
    frechet_distance,
    kernel_distance,
)

WIDTH = 6


def features(n=200, *, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, WIDTH, generator=generator)
    drawn[:, 0] += shift
    return normalize(drawn, dim=1)


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
def test_the_same_pictures_are_no_distance_apart(distance):
    assert distance(features(), features()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
def test_pictures_further_off_are_further_apart(distance):
    near, far = (distance(features(), features(seed=1, shift=shift)) for shift in (0.5, 2))
    assert 0.02 < near < far


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
def test_which_model_comes_first_does_not_matter(distance):
    one, other = features(), features(seed=1, shift=1)
    assert distance(one, other) == pytest.approx(distance(other, one))


def test_pairs_that_are_much_alike_do_not_pull_the_distance_below_zero():
    """A model that is hardly changed draws almost the same picture of each prompt and seed."""
    before = features(30)
    after = normalize(before + 0.05 * features(30, seed=1), dim=1)
    assert abs(kernel_distance(before, after)) < 0.01


def test_normal_distributions_are_as_far_apart_as_their_moments_say():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(200_000, 2, generator=generator)
    other = 2 * torch.randn(200_000, 2, generator=generator) + torch.tensor([3.0, 0.0])
    # ‖μ‖² = 9, and each of two variances gives (2 - 1)².
    assert frechet_distance(one, other) == pytest.approx(11, rel=0.02)


def test_without_an_encoder_nothing_is_measured():
    assert fidelity(None, ["a cat"], [], []) == NOTHING


def test_few_pictures_have_no_distance_of_distributions():
    likeness = Likeness.load(SHIPPED_MODELS / "emoji")
    count = LEAST_KERNEL
    grey = [Image.new("RGB", (64, 64), (n, n, n)) for n in range(count)]
    few = fidelity(likeness, ["a cat"] * (count - 1), grey[1:], grey[1:])
    enough = fidelity(likeness, ["a cat"] * count, grey, grey)
    assert few.kernel_distance is None
    assert enough.kernel_distance == pytest.approx(0, abs=1e-6)
    assert enough.frechet_distance is None
    assert enough.feature_distance == pytest.approx(0, abs=1e-5)
    assert enough.clip_score == enough.clip_score_base
