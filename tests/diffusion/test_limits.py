"""Limits of a pass are lowered at once, and rise again with care."""

import pytest

from diffusion.limits import LONGEST_PATIENCE, PATIENCE, BatchLimits

SIDES = (8, 8)


def passes(limits: BatchLimits, count: int, *, room: int, waiting: int = 100) -> list[int]:
    """The rows of so many guided passes that end well, on a device where `room` rows fit."""
    rows = []
    while len(rows) < count:
        size = limits.rows(SIDES, waiting)
        if size > room:
            limits.lower(SIDES, size // 2)
        else:
            rows.append(size)
    return rows


def test_a_lowered_limit_rises_again_when_the_memory_is_back():
    limits = BatchLimits(16)
    assert passes(limits, 3, room=10) == [8] * 3
    assert passes(limits, PATIENCE, room=32) == [8] * (PATIENCE - 3) + [10] * 3
    assert passes(limits, 10 * PATIENCE, room=32)[-1] == 16


def test_it_rises_no_further_than_memory_should_hold_or_anybody_waits_for():
    limits = BatchLimits(16, fitting=lambda _: 11)
    passes(limits, 1, room=10)
    assert max(passes(limits, 10 * PATIENCE, room=100)) == 11

    limits = BatchLimits(16)
    passes(limits, 1, room=10)
    assert set(passes(limits, 10 * PATIENCE, room=100, waiting=8)) == {8}


def test_a_pass_has_no_more_rows_than_memory_holds_at_that_moment():
    held = iter([3, None, 1, 20])
    limits = BatchLimits(16, now=lambda _: next(held))

    assert [limits.rows(SIDES, 100) for _ in range(4)] == [3, 16, 1, 16]


def test_it_does_not_rise_beyond_what_gains_anything():
    limits = BatchLimits(16, worthwhile=lambda _, rows: 6 if rows > 6 else None)
    assert set(passes(limits, 10 * PATIENCE, room=100)) == {6}


def test_what_was_never_tried_has_not_fitted():
    """A pass of 8 is as good as one of more: nobody learns whether 10 would fit."""
    fitted: list[int] = []
    limits = BatchLimits(
        16,
        found=lambda _: 8,
        fitted=lambda _, rows: fitted.append(rows),
        worthwhile=lambda *_: 8,
    )
    assert set(passes(limits, 10 * PATIENCE, room=100)) == {8}
    assert fitted == []


def test_what_does_not_fit_still_is_taken_back_and_tried_less_and_less_often():
    told: list[int] = []
    limits = BatchLimits(16, remember=lambda _, rows: told.append(rows))
    passes(limits, 20 * PATIENCE, room=8)

    # 16 at first; then 10 after 100, 200, 400 and 800 passes: never half of 8.
    assert told == [8] * 5
    passes(limits, 10 * LONGEST_PATIENCE, room=8)
    told.clear()
    passes(limits, 3 * LONGEST_PATIENCE, room=8)
    assert told == [8] * 3


def test_what_has_risen_is_told_only_when_it_has_fitted():
    fitted: list[int] = []
    limits = BatchLimits(16, found=lambda _: 4, fitted=lambda _, rows: fitted.append(rows))
    passes(limits, PATIENCE, room=4)
    assert passes(limits, 1, room=4) == [4]
    assert fitted == []

    passes(limits, 2 * PATIENCE, room=100)
    assert passes(limits, 2, room=100) == [6, 6]
    assert fitted == [6]


@pytest.mark.parametrize("room", [2, 6, 8, 30])
def test_whatever_fits_every_pass_ends_well(room):
    limits = BatchLimits(64)
    assert max(passes(limits, 5000, room=room)) <= room
