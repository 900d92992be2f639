"""What was used and is not any more goes back to the system, now and then."""

import platform

import psutil
import pytest
import torch

from diffusion.freed_memory import EVERY_S, Returning

MIB = 1 << 20
PIECES = 400
PIECE = MIB // 4 // 4
"""Of float32: a quarter of a MiB."""


def held_mib() -> float:
    return float(psutil.Process().memory_info().rss / MIB)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others know no such call")
def test_what_lies_between_things_that_live_goes_back_when_it_is_time():
    clock = [0.0]
    returning = Returning(now=lambda: clock[0])
    # From now on the C library takes what is as large as this from its heap, too.
    torch.ones(4 * MIB)
    pieces, living = [], []
    for _ in range(PIECES):
        pieces.append(torch.ones(PIECE))
        living.append(torch.ones(2048))
    full = held_mib()
    pieces.clear()
    returning()
    early = held_mib()
    clock[0] = EVERY_S
    returning()
    late = held_mib()

    assert full - early < PIECES / 4 / 2
    assert full - late > PIECES / 4 * 0.8
    assert all(one.sum() == 2048 for one in living)
