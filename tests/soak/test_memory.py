import pytest

from tests.soak.memory import growth


def line(mib_per_hour: float, *, count: int = 40):
    return [(900.0 + 60 * n, 300 + mib_per_hour * n / 60) for n in range(count)]


def test_a_process_that_grows_shows_its_slope():
    found = growth("child", line(12.0))

    assert found.slope_mib_per_hour == pytest.approx(12.0)
    assert found.last_mib > found.first_mib + 3


def test_a_constant_one_shows_none():
    assert growth("child", line(0.0)).slope_mib_per_hour == pytest.approx(0.0)


def test_a_steep_warm_up_is_no_growth():
    warm = [(n * 60.0, n * 50.0) for n in range(10)] + [(600.0 + 60 * n, 500.0) for n in range(40)]

    assert growth("child", warm).slope_mib_per_hour == pytest.approx(0.0)
