"""Faults find their time, whatever they have to wait for."""

import random

import pytest

from tests.chaos.schedule import PATIENCE_S, Pace, Schedule

HOUR_S = 3600.0


def schedule(count: int, *, seed: int = 1) -> Schedule:
    faults = [f"fault {number}" for number in range(count)]
    return Schedule(faults, began=0.0, seconds=HOUR_S, rng=random.Random(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("waits_s", [0.0, 4.0, 9.0])
def test_all_strike_within_the_time_however_long_some_wait(seed, waits_s):
    """Each third one waits so long for something to strike."""
    faults, now, last = schedule(350, seed=seed), 0.0, 0.0
    while faults.left:
        now = max(now, faults.strike_at) + (waits_s if len(faults.left) % 3 == 0 else 0.0)
        faults.struck(now)
        last = now

    assert HOUR_S * 0.9 < last < HOUR_S


def test_nothing_is_due_before_its_time_but_what_goes_ahead_of_it():
    faults = schedule(3)
    before = faults.strike_at - 0.5

    assert not faults.is_due(before)
    assert faults.is_due(before, ahead_s=0.6)
    assert faults.is_due(faults.strike_at)


def test_one_that_finds_nothing_lets_the_next_one_go_first_and_is_not_forgotten():
    faults = schedule(3)
    first, began = faults.kind, faults.strike_at
    faults.missed(began + PATIENCE_S / 2)
    assert faults.kind == first

    faults.missed(began + PATIENCE_S)
    assert faults.kind != first
    assert faults.left[0] == first
    assert faults.is_due(began + PATIENCE_S)


def test_jobs_are_asked_for_in_waves_and_end_at_their_number():
    pace = Pace(jobs=100, waves=10, burst=8)
    assert not pace.may_ask(0)

    pace.released = 1
    assert pace.may_ask(9)
    assert not pace.may_ask(10)
    pace.ask_for_more(9)
    assert not pace.may_ask(10)
    pace.ask_for_more(10)
    assert pace.may_ask(17)

    pace.released = 10
    with pytest.raises(StopIteration):
        pace.may_ask(108)


def test_some_jobs_are_kept_for_the_calm_after_the_last_fault():
    pace = Pace(jobs=100, waves=10, burst=8, released=9, in_calm=32)
    assert not pace.may_ask(100)

    pace.released, pace.calm = 10, True
    assert pace.may_ask(131)
    with pytest.raises(StopIteration):
        pace.may_ask(132)
