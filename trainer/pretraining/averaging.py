"""A moving average of weights: what is sampled from and saved, while the raw weights train."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """w̄ ← w̄ + (1 - d)(w - w̄), with a decay d that starts low and rises to `decay`."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = list(model.parameters())
        self.means = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 20))
        torch._foreach_lerp_(self.means, [w.detach() for w in self.weights], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model carries its averaged weights inside this block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, mean in zip(self.weights, self.means, strict=True):
            kept = weight.detach().clone()
            weight.copy_(mean)
            mean.copy_(kept)
