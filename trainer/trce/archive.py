"""`statistics.safetensors`: what the closed form of a model was solved from.

    <i>.displacement, <i>.moment, <i>.weight     the sums of concept i
    kept.<k>.total, kept.<k>.withheld            the captions of group k, see trainer.preservation

With it, concepts are added, taken out and merged exactly by solving again.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UntrustedModel
from trainer.preservation import Kept, KeptGroup
from trainer.trce.statistics import Statistics

FILENAME = "statistics.safetensors"
FORMAT = "trce-statistics-2"


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
    groups: list[_Group]


def save_statistics(path: Path, concepts: Mapping[str, Statistics], kept: Kept) -> None:
    """Write every concept's sums, and what was preserved."""
    tensors = {}
    for number, statistics in enumerate(concepts.values()):
        tensors[f"{number}.displacement"] = statistics.displacement
        tensors[f"{number}.moment"] = statistics.moment
        tensors[f"{number}.weight"] = torch.tensor(statistics.weight, dtype=torch.float64)
    groups = []
    for number, group in enumerate(kept.groups):
        captions = sorted(group.withheld)
        tensors[f"kept.{number}.total"] = group.total
        if captions:
            withheld = torch.stack([group.withheld[caption] for caption in captions])
            tensors[f"kept.{number}.withheld"] = withheld
        groups.append(
            _Group(
                name=group.name,
                weight=group.weight,
                digest=group.digest,
                count=group.count,
                withheld=captions,
            )
        )
    contents = _Contents(concepts=list(concepts), encoder=kept.encoder, groups=groups)
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
            if FORMAT not in metadata:
                raise UntrustedModel(f"{path.name} is not in the format {FORMAT}; erase anew")
            contents = _Contents.model_validate_json(metadata[FORMAT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValidationError) as error:
        raise UntrustedModel(f"{path.name} holds no statistics: {error}") from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UntrustedModel(f"{path.name}: {name} holds numbers that are not finite")
    try:
        concepts = {
            name: Statistics(
                displacement=tensors[f"{number}.displacement"],
                moment=tensors[f"{number}.moment"],
                weight=float(tensors[f"{number}.weight"]),
            )
            for number, name in enumerate(contents.concepts)
        }
        groups = [
            KeptGroup(
                name=group.name,
                weight=group.weight,
                digest=group.digest,
                count=group.count,
                total=tensors[f"kept.{number}.total"],
                withheld=_withheld(group.withheld, tensors.get(f"kept.{number}.withheld")),
            )
            for number, group in enumerate(contents.groups)
        ]
    except (KeyError, ValueError) as error:
        raise UntrustedModel(f"{path.name} is incomplete: {error}") from error
    return concepts, Kept(contents.encoder, tuple(groups))


def _withheld(captions: list[str], embeddings: Tensor | None) -> dict[str, Tensor]:
    if embeddings is None:
        return {}
    return dict(zip(captions, embeddings.unbind(), strict=True))
