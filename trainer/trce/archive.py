"""`statistics.safetensors`: what the closed form of a model was solved from.

    <i>.displacement, <i>.moment, <i>.weight     the sums of concept i
    kept.<k>.total, kept.<k>.withheld            the captions of group k, see trainer.preservation
    <i>.pooled.moment ... kept.pooled.<k>.total  the same of pooled embeddings, for SDXL

With it, concepts are added, taken out and merged exactly by solving again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UntrustedModel
from trainer.preservation import Kept, KeptGroup
from trainer.trce.statistics import Statistics

FILENAME = "statistics.safetensors"
FORMAT = "trce-statistics-3"
WITHOUT_WORDS = "trce-statistics-2"
"""The same, from before words were moved: every sum is over [EoT]s alone."""
POOLED = "pooled."

Part = TypeVar("Part", Statistics, Kept)


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    weight: float
    digest: str
    count: int
    withheld: list[str]


class _Contents(BaseModel):
    model_config = ConfigDict(extra="forbid")

    concepts: list[str]
    encoder: str
    pooled: bool
    groups: list[_Group]


def save_statistics(path: Path, concepts: Mapping[str, Statistics], kept: Kept) -> None:
    """Write every concept's sums, and what was preserved."""
    tensors = {}
    for number, statistics in enumerate(concepts.values()):
        for prefix, one in _with_pooled(f"{number}.", statistics):
            tensors[f"{prefix}displacement"] = one.displacement
            tensors[f"{prefix}moment"] = one.moment
            tensors[f"{prefix}weight"] = torch.tensor(one.weight, dtype=torch.float64)
    for prefix, part in _with_pooled("kept.", kept):
        for number, group in enumerate(part.groups):
            tensors[f"{prefix}{number}.total"] = group.total
            if captions := sorted(group.withheld):
                withheld = torch.stack([group.withheld[caption] for caption in captions])
                tensors[f"{prefix}{number}.withheld"] = withheld
    groups = [
        _Group(
            name=group.name,
            weight=group.weight,
            digest=group.digest,
            count=group.count,
            withheld=sorted(group.withheld),
        )
        for group in kept.groups
    ]
    contents = _Contents(
        concepts=list(concepts),
        encoder=kept.encoder,
        pooled=kept.pooled is not None,
        groups=groups,
    )
    # One key: safetensors writes several in an order that changes.
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        str(path),
        metadata={FORMAT: contents.model_dump_json()},
    )


def load_statistics(path: Path) -> tuple[dict[str, Statistics], Kept]:
    """What `save_statistics` wrote: concept name -> sums, and what was preserved.

    Raises:
        UntrustedModel: not such a file, or numbers in it are not finite.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(FORMAT, metadata.get(WITHOUT_WORDS))
            if text is None:
                raise UntrustedModel(f"{path.name} is not in the format {FORMAT}; erase anew")
            contents = _Contents.model_validate_json(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValidationError) as error:
        raise UntrustedModel(f"{path.name} holds no statistics: {error}") from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UntrustedModel(f"{path.name}: {name} holds numbers that are not finite")
    try:
        concepts = {
            name: _statistics(tensors, f"{number}.", pooled=contents.pooled)
            for number, name in enumerate(contents.concepts)
        }
        return concepts, _kept(tensors, "kept.", contents, pooled=contents.pooled)
    except (KeyError, ValueError) as error:
        raise UntrustedModel(f"{path.name} is incomplete: {error}") from error


def may_hold_words(path: Path) -> bool:
    """False: the file that `load_statistics` reads is from before words were moved."""
    with safe_open(str(path), framework="pt") as file:
        return FORMAT in (file.metadata() or {})


def _with_pooled(prefix: str, part: Part) -> list[tuple[str, Part]]:
    parts = [(prefix, part)]
    if part.pooled is not None:
        parts.append((f"{prefix}{POOLED}", part.pooled))
    return parts


def _statistics(tensors: Mapping[str, Tensor], prefix: str, *, pooled: bool) -> Statistics:
    return Statistics(
        displacement=tensors[f"{prefix}displacement"],
        moment=tensors[f"{prefix}moment"],
        weight=float(tensors[f"{prefix}weight"]),
        pooled=_statistics(tensors, prefix + POOLED, pooled=False) if pooled else None,
    )


def _kept(
    tensors: Mapping[str, Tensor], prefix: str, contents: _Contents, *, pooled: bool
) -> Kept:
    groups = [
        KeptGroup(
            name=group.name,
            weight=group.weight,
            digest=group.digest,
            count=group.count,
            total=tensors[f"{prefix}{number}.total"],
            withheld=_withheld(group.withheld, tensors.get(f"{prefix}{number}.withheld")),
        )
        for number, group in enumerate(contents.groups)
    ]
    of_pooled = _kept(tensors, prefix + POOLED, contents, pooled=False) if pooled else None
    return Kept(contents.encoder, tuple(groups), of_pooled)


def _withheld(captions: list[str], embeddings: Tensor | None) -> dict[str, Tensor]:
    if embeddings is None:
        return {}
    return dict(zip(captions, embeddings.unbind(), strict=True))
