import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.rates import Rate


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_interval_holds_the_rate_and_stays_within_bounds(outcomes):
    rate = Rate.of(outcomes)
    low, high = rate.interval
    rounding = 1e-12
    assert 0 <= low <= rate.value + rounding
    assert rate.value - rounding <= high <= 1


@given(st.integers(1, 50), st.integers(1, 50))
def test_ten_times_the_pictures_make_a_narrower_interval(hits, misses):
    low, high = Rate(hits, hits + misses).interval
    lower, higher = Rate(10 * hits, 10 * (hits + misses)).interval
    assert higher - lower < high - low


def test_no_hit_in_few_pictures_does_not_prove_zero():
    """Wilson's interval for 0 of 10 reaches z^2 / (n + z^2)."""
    assert Rate(0, 10).interval == pytest.approx((0, 1.96**2 / (10 + 1.96**2)))


def test_nothing_asked_is_nothing_known():
    assert Rate(0, 0).interval == (0, 1)
    assert Rate(0, 0).value == 0
