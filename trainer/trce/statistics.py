"""What the closed form needs to know of a concept: three sums, and nothing else.

Sums add up: the statistics of several concepts are the sum of theirs. So a concept is added to
an erased model, or taken out of it, exactly, by solving again; no prompt is encoded anew.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UntrustedModel
from trainer.trce.tokens import TokenPairs

FILENAME = "statistics.safetensors"
FORMAT = "trce-statistics-1"


@dataclass(frozen=True)
class Statistics:
    displacement: Tensor
    """(d, d) float64, the sum of w (e_s - e_m) e_m^T."""
    moment: Tensor
    """(d, d) float64, the sum of w e_m e_m^T."""
    weight: float
    """The sum of w: how many words were moved."""

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
        )


def save_statistics(path: Path, concepts: Mapping[str, Statistics], kept: Tensor) -> None:
    """Every concept's sums, and K, the second moment of what was preserved, (d, d)."""
    tensors = {"kept": kept.double().cpu().contiguous()}
    for number, statistics in enumerate(concepts.values()):
        tensors[f"{number}.displacement"] = statistics.displacement.cpu().contiguous()
        tensors[f"{number}.moment"] = statistics.moment.cpu().contiguous()
        tensors[f"{number}.weight"] = torch.tensor(statistics.weight, dtype=torch.float64)
    # One key: safetensors writes several in an order that changes.
    save_file(tensors, str(path), metadata={FORMAT: json.dumps(list(concepts))})


def load_statistics(path: Path) -> tuple[dict[str, Statistics], Tensor]:
    """What `save_statistics` wrote: concept name -> sums, and K.

    Raises:
        UntrustedModel: not such a file.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                raise UntrustedModel(f"{path.name} is not in the format {FORMAT}")
            concepts = {
                name: Statistics(
                    displacement=file.get_tensor(f"{number}.displacement"),
                    moment=file.get_tensor(f"{number}.moment"),
                    weight=float(file.get_tensor(f"{number}.weight")),
                )
                for number, name in enumerate(json.loads(metadata[FORMAT]))
            }
            return concepts, file.get_tensor("kept")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UntrustedModel(f"{path.name} holds no statistics: {error}") from error
