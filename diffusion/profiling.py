"""How many rows a UNet pass is worth having: found by timing passes of 2, 4, 8 ... rows.

Where the device is busy, twice as many rows take twice as long, and gain nothing but need for
memory; on a CPU they may even lose what its caches hold.
"""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from diffusion.full_memory import ran_out

FEWEST = 2
"""The rows of one guided picture."""
GROWTH = {"cpu": 1.02}
GROWTH_ELSEWHERE = 1.05
"""Twice as many rows are worth it when they give so many times the rows a second, by the kind of
device: a CPU has memory to spare, and its clock counts this thread's time alone."""
LONGEST_S = 2.0
"""A pass that is expected to take longer is not tried: those who wait would wait for it."""
SHORTEST_S = 1e-3
"""What takes less is not the device's time, and says nothing of it."""
REPEATS = 3


def knee(seconds: Mapping[int, float], device_type: str) -> int | None:
    """The rows beyond which a pass gains nothing; None: more were always better, so far.

    Args:
        seconds: rows of a pass -> how long it took.
        device_type: "cpu", "cuda" ...
    """
    growth = GROWTH.get(device_type, GROWTH_ELSEWHERE)
    for rows in sorted(seconds):
        twice = seconds.get(2 * rows)
        if twice is None or twice < SHORTEST_S:
            continue
        if 2 * seconds[rows] < growth * twice:
            return rows
    return None


@torch.inference_mode()
def timed_further(
    seconds: Mapping[int, float],
    wanted: int,
    rehearse: Callable[[int], Callable[[], Tensor]],
    device_type: str,
) -> dict[int, float]:
    """What is known of passes, and of larger ones, up to `wanted` rows or to the knee.

    Nothing is timed where so few rows are wanted that no pass has one of half its size beside it.
    Passes are made and run as rows are drawn: a compiled UNet has graphs for inference mode alone.

    Args:
        rehearse: makes one pass of so many rows, `diffusion.rehearsing.rehearsal`.
    """
    known, rows = dict(seconds), FEWEST
    if wanted < 2 * FEWEST:
        return known
    while rows <= wanted and knee(known, device_type) is None:
        if rows not in known:
            if 2 * known.get(rows // 2, 0.0) > LONGEST_S:
                break
            try:
                known[rows] = pass_seconds(rehearse(rows))
                if knee(known, device_type) is not None:
                    # Once more: it is kept, and somebody else may have been busy just now.
                    for one in (rows // 2, rows):
                        known[one] = min(known[one], pass_seconds(rehearse(one)))
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                break  # the batch itself will find that out, and lower its bound
        rows *= 2
    return known


def pass_seconds(run: Callable[[], Tensor]) -> float:
    """The least of some passes, after one that does not count unless it takes long."""
    first = _seconds(run)
    return first if first > LONGEST_S else min(_seconds(run) for _ in range(REPEATS))


def _seconds(run: Callable[[], Tensor]) -> float:
    """On a CPU, those of this thread: others may be busy there, and tell nothing of the pass."""
    began_s, computing_s = time.perf_counter(), time.thread_time()
    done = run()
    if not done.is_cuda:
        return time.thread_time() - computing_s
    torch.cuda.synchronize(done.device)
    return time.perf_counter() - began_s
