"""Fair turns between batches of different weights."""

import itertools

import pytest

from worker.turns import LONGEST_S, Turns


class Batch:
    """Only its identity counts here."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def turns_taken(turns, clock, batches, *, steps, step_s, swap_s):
    """The batch of each step, where a swap takes `swap_s` and a step `step_s`."""
    taken = []
    for _ in range(steps):
        chosen = turns.next(batches)
        swapped = not taken or taken[-1] is not chosen
        clock.now_s += swap_s if swapped else 0
        turns.took(swap_s if swapped else 0)
        clock.now_s += step_s
        taken.append(chosen)
    return taken


def test_where_swaps_cost_nothing_each_steps_in_turn(clock):
    batches = [Batch(), Batch(), Batch()]
    taken = turns_taken(Turns(clock), clock, batches, steps=9, step_s=1.0, swap_s=0.0)
    assert taken == batches * 3


@pytest.mark.parametrize(("swap_s", "step_s"), [(0.01, 0.05), (0.1, 0.05), (0.5, 0.3)])
def test_swaps_cost_a_tenth_and_turns_are_bounded(clock, swap_s, step_s):
    batches = [Batch(), Batch()]
    taken = turns_taken(Turns(clock), clock, batches, steps=200, step_s=step_s, swap_s=swap_s)

    swaps = sum(a is not b for a, b in itertools.pairwise(taken))
    longest = max(len(run) for run in "".join("ab"[one is batches[1]] for one in taken).split("b"))
    assert 0.4 < sum(one is batches[0] for one in taken) / 200 < 0.6
    assert longest * step_s <= LONGEST_S + step_s
    if swap_s * 10 < LONGEST_S:
        assert swaps * swap_s <= 0.1 * 200 * step_s


def test_who_has_waited_longest_is_next(clock):
    turns, (first, second, third) = Turns(clock), (Batch() for _ in range(3))
    turns_taken(turns, clock, [first, second], steps=2, step_s=1.0, swap_s=0.0)
    turns_taken(turns, clock, [second], steps=3, step_s=1.0, swap_s=0.0)

    assert turns_taken(turns, clock, [first, second, third], steps=3, step_s=1.0, swap_s=0.0) == [
        third,
        first,
        second,
    ]


def test_alone_a_batch_goes_on_and_a_newcomer_waits_for_one_turn_at_most(clock):
    turns, (first, second) = Turns(clock), (Batch(), Batch())
    turns_taken(turns, clock, [first], steps=100, step_s=1.0, swap_s=0.1)

    assert turns.next([first, second]) is second
