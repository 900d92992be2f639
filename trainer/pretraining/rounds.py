"""Endless batches: every row once per round, in a new order each round."""

from collections.abc import Iterator

import torch
from torch import Tensor


def batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers, `size` at a time; a row listed twice comes twice per round."""
    waiting = rows[:0]
    while True:
        while len(waiting) < size:
            order = torch.randperm(len(rows), generator=generator)
            waiting = torch.cat([waiting, rows[order]])
        yield waiting[:size]
        waiting = waiting[size:]
