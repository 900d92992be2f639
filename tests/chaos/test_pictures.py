"""A picture is the one that was ordered, and of the model that was ordered."""

import io

import pytest
from PIL import Image

from tests.chaos.test_checker import order, png, verdict
from tests.chaos.variants import CHANGED, MAPPED, MODEL


def test_the_same_model_and_seed_must_be_the_same_picture():
    assert not verdict(order("a", value=7), order("b", value=8)).wrong_pictures
    assert len(verdict(order("a", value=7), order("b", value=9)).wrong_pictures) == 1


def test_another_seed_must_be_another_picture():
    assert not verdict(order("a"), order("b", seed=2, value=9)).wrong_pictures
    assert len(verdict(order("a"), order("b", seed=2)).wrong_pictures) == 1


@pytest.mark.parametrize("model", [MAPPED, CHANGED])
def test_an_erased_models_picture_must_be_another_one_than_its_bases(model):
    assert not verdict(order("a"), order("b", model=model, value=9)).wrong_pictures
    (found,) = verdict(order("a"), order("b", model=model)).wrong_pictures

    assert model in found
    assert "are the same picture" in found


def test_one_models_pictures_are_compared_with_one_another():
    done = verdict(order("a", model=MAPPED), order("b", model=MAPPED, value=9))

    assert "drew" in done.wrong_pictures[0]


@pytest.mark.parametrize(
    ("told", "found"),
    [
        pytest.param({"model": MAPPED}, "ordered was tiny", id="another model"),
        pytest.param({"model_digest": "0" * 64}, "ordered was tiny", id="other weights"),
        pytest.param({"generation": "b"}, "ordered was tiny", id="another job"),
        pytest.param({"pixels": "0" * 64}, "other pixels than it says", id="other pixels"),
    ],
)
def test_a_picture_says_which_weights_drew_it_for_which_job(told, found):
    picture = png(7, **({"generation": "a"} | told))

    assert found in verdict(order("a", picture=picture)).wrong_pictures[0]


def test_a_picture_without_a_record_or_that_nobody_can_read_is_wrong():
    plain = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plain, "PNG")
    for picture, found in [(plain.getvalue(), "does not say"), (b"nothing", "cannot be read")]:
        assert found in verdict(order("a", picture=picture)).wrong_pictures[0]


def test_jobs_are_counted_by_what_their_model_is():
    done = verdict(order("a"), order("b", seed=2, value=9), order("c", model=MAPPED, value=20))

    assert done.jobs_of == {"base": 2, "text map": 1}
    assert MODEL not in done.jobs_of
