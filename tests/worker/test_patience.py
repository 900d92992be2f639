import pytest

from worker.patience import FIRST_S, LONGEST_S, Patience


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def patience(clock):
    return Patience(now=lambda: clock[0])


def wait_of(patience, clock) -> float:
    """Seconds until it goes on."""
    began = clock[0]
    while patience.waits:
        clock[0] += 0.5
    return clock[0] - began


def test_it_waits_twice_as_long_each_time_but_not_for_ever(patience, clock):
    waits = []
    for _ in range(8):
        patience.failed()
        waits.append(wait_of(patience, clock))

    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S


def test_failures_of_one_batch_are_one(patience, clock):
    for _ in range(8):
        patience.failed()

    assert wait_of(patience, clock) == FIRST_S


def test_a_success_ends_the_row(patience, clock):
    for _ in range(3):
        patience.failed()
        wait_of(patience, clock)
    patience.succeeded()
    patience.failed()

    assert wait_of(patience, clock) == FIRST_S
