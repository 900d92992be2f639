"""Which erasures are cancelled, and when."""

import math

import pytest

from tests.chaos.erasing import CANCELLED_WITHIN_S, ErasureClient, ErasurePace
from tests.chaos.journal import Journal

NOW = 1000.0


def cancelled_at(erasures: int, *, asked: int, seed: int = 1) -> dict[int, float]:
    """Number of each that is to be cancelled -> when."""
    pace = ErasurePace(erasures, began=0.0, seconds=3600.0)
    client = ErasureClient("http://nobody", Journal(), seed, pace, clock=lambda: NOW)
    times = {number: client.cancel_at(number) for number in range(asked)}
    return {number: at for number, at in times.items() if at < math.inf}


@pytest.mark.parametrize("seed", range(5))
def test_one_of_each_five_is_cancelled_soon_after_it_was_accepted(seed):
    cancelled = cancelled_at(40, asked=40, seed=seed)

    assert sorted(number // 5 for number in cancelled) == list(range(8))
    assert all(NOW <= at <= NOW + CANCELLED_WITHIN_S for at in cancelled.values())
    assert cancelled == cancelled_at(40, asked=40, seed=seed)


def test_which_ones_and_when_is_another_matter_for_another_seed():
    assert len({tuple(cancelled_at(40, asked=40, seed=seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("erasures", [2, 3, 5])
def test_of_fewer_one_is_cancelled_as_well(erasures):
    assert len(cancelled_at(erasures, asked=erasures)) == 1
