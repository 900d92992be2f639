"""Figures and losses, as people read them."""

import pytest

from service.web.curves import curves
from service.web.measured import facts


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("map_prompt_seconds", 0.0003089, ("Added to each prompt", "0.309 ms")),
        ("erased_step_seconds", 1.25, ("One step of this model", "1.2 s")),
        ("artifact_bytes", 162_000_000, ("What a worker swaps in", "162.0 MB")),
        ("peak_memory_bytes", 5_240_000_000, ("Memory it took to make", "5.24 GB")),
        ("parameters_changed", 81_100_000, ("Weights changed", "81,100,000")),
        ("some_other_seconds", 2, ("Some other", "2.0 s")),
        ("condition", 12.3456, ("Condition of the closed form", "12.3")),
    ],
)
def test_a_figure_has_a_name_and_a_unit(name, value, said):
    assert facts({name: value}) == [said]


def test_a_loss_is_told_by_means_and_not_by_the_batch_that_came_last():
    falling = [10.0 - place / 10 for place in range(100)]
    (curve,) = curves({"prompted": [*falling[:-1], 50.0]})

    assert curve.first == pytest.approx(9.55)
    assert curve.last == pytest.approx(5.455, abs=0.1)
    assert curve.points.count(" ") == 99


def test_of_few_values_the_first_and_the_last_are_told():
    (curve,) = curves({"prompted": [3.0, 2.0, 1.0]})

    assert (curve.first, curve.last) == (3.0, 1.0)
    assert curve.points.startswith("0.0,0.0 ")
