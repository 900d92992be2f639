"""What the closed form needs to know of a concept: three sums, and nothing else.

Sums add up: the statistics of several concepts are the sum of theirs. So a concept is added to
an erased model, or taken out of it, exactly, by solving again; no prompt is encoded anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from trainer.trce.tokens import TokenPairs


@dataclass(frozen=True)
class Statistics:
    displacement: Tensor
    """(d, d) float64, the sum of w (e_s - e_m) e_m^T."""
    moment: Tensor
    """(d, d) float64, the sum of w e_m e_m^T."""
    weight: float
    """The sum of w: how many words were moved."""
    pooled: "Statistics | None" = None
    """The same of pooled embeddings; SDXL alone has them."""

    @classmethod
    def of(cls, pairs: TokenPairs) -> Self:
        weighted = pairs.weights[:, None] * pairs.unsafe
        return cls(
            displacement=(pairs.safe - pairs.unsafe).T @ weighted,
            moment=pairs.unsafe.T @ weighted,
            weight=float(pairs.weights.sum()),
        )

    @classmethod
    def total(cls, parts: Iterable["Statistics"]) -> "Statistics":
        """Their sum; there must be one at least."""
        first, *others = parts
        for other in others:
            first = first + other
        return first

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(
            displacement=self.displacement + other.displacement,
            moment=self.moment + other.moment,
            weight=self.weight + other.weight,
            pooled=self.pooled + other.pooled if self.pooled and other.pooled else None,
        )
