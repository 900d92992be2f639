"""TRCE stage 2, a lesson in the making: the points drawn so far, kept now and then.

Drawing the trajectories of a large model takes longer than one should lose, one group of them
already. Groups are drawn in a fixed order, step by step, and each fills rows of its own; so the
tensors as they are, the number of groups that are done, and the latents of the group that is
being drawn are all that a killed run is resumed from.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from core.files import write_atomically

KEEP_EVERY_S = 120.0
FORMAT = "trce-draft-2"
LATENTS = "latents of the next group"


@dataclass(frozen=True)
class Reached:
    groups: int = 0
    """That are done."""
    next_group: tuple[int, Tensor] | None = None
    """The step that is next in it, and the latents before it; None: it has not begun."""


@dataclass
class Draft:
    """One file for one kind of points."""

    path: Path
    key: str
    """Names everything that the points depend on; a file of another key is not resumed."""
    kept_at: float = 0.0

    def resume(self, points: Any) -> Reached:
        """Fill in what was drawn; returns how far that is, nowhere if nothing was kept."""
        self.kept_at = time.monotonic()
        try:
            with safe_open(str(self.path), framework="pt") as file:
                document = json.loads((file.metadata() or {})[FORMAT])
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            return Reached()
        if document["key"] != self.key:
            return Reached()
        for name, tensor in _tensors(points).items():
            tensor.copy_(kept[name])
        latents = kept.get(LATENTS)
        return Reached(
            document["groups"], None if latents is None else (document["step"], latents)
        )

    def keep(self, points: Any, reached: Reached) -> None:
        """Write what is drawn, if the last time is long enough ago."""
        if time.monotonic() - self.kept_at < KEEP_EVERY_S:
            return
        tensors = {name: tensor.cpu().contiguous() for name, tensor in _tensors(points).items()}
        document: dict[str, Any] = {"key": self.key, "groups": reached.groups}
        if reached.next_group is not None:
            document["step"], latents = reached.next_group
            tensors[LATENTS] = latents.cpu().contiguous()
        write_atomically(self.path, save(tensors, metadata={FORMAT: json.dumps(document)}))
        self.kept_at = time.monotonic()

    def discard(self) -> None:
        """The lesson is kept as a whole now."""
        self.path.unlink(missing_ok=True)


def _tensors(points: Any) -> Mapping[str, Tensor]:
    assert is_dataclass(points)
    return {one.name: getattr(points, one.name) for one in fields(points)}
