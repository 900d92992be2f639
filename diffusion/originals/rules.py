"""Which tensors of a diffusers folder are which tensor of an original checkpoint.

Most are the same under another name. Three kinds differ: the VAE's attention is written as 1 x 1
convolutions; OpenCLIP keeps query, key and value in one tensor, and its text projection
transposed. A rule works in both directions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Shape = tuple[int, ...]
How = Literal["same", "1x1", "stacked", "transposed"]


@dataclass(frozen=True)
class Rule:
    key: str
    """Of the original checkpoint."""
    parts: tuple[str, ...]
    """Names of the diffusers folder's parameters, without the part's name."""
    how: How = "same"

    def to_original(self, tensors: Sequence[Tensor]) -> Tensor:
        match self.how:
            case "same":
                return tensors[0]
            case "1x1":
                return tensors[0].reshape(*tensors[0].shape, 1, 1)
            case "stacked":
                return torch.cat(list(tensors))
            case "transposed":
                return tensors[0].T.contiguous()

    def from_original(self, tensor: Tensor) -> list[Tensor]:
        match self.how:
            case "same":
                return [tensor]
            case "1x1":
                # Some files hold a plain matrix here.
                return [tensor.flatten(1)]
            case "stacked":
                return list(tensor.chunk(len(self.parts)))
            case "transposed":
                return [tensor.T.contiguous()]

    def original_shape(self, shapes: Sequence[Shape]) -> Shape:
        first = shapes[0]
        match self.how:
            case "same":
                return first
            case "1x1":
                return (*first, 1, 1)
            case "stacked":
                return (sum(shape[0] for shape in shapes), *first[1:])
            case "transposed":
                return first[::-1]


def renamed(names: Sequence[str], rename: Callable[[str], str]) -> list[Rule]:
    return [Rule(rename(name), (name,)) for name in names]


def replaced(text: str, table: Mapping[str, str]) -> str:
    """The first entry of the table that `text` starts with, replaced."""
    for old, new in table.items():
        if text.startswith(old):
            return new + text.removeprefix(old)
    return text
