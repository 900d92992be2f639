"""The concepts that the model draws, and which icon of which set shows each of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from trainer.pretraining.folders import TABLES

TINTED = "tinted"
"""The style-less style: a one-colour icon drawn in a colour of its concept."""


@dataclass(frozen=True)
class Concept:
    """One thing to draw.

    `icons` maps a drawing style to "set/icon", or is one emoji short name that all styles
    share. `tint` is the colour of the extra picture of a one-colour icon.
    """

    name: str
    category: str
    icons: str | dict[str, str]
    tint: str | None = None


def load(path: Path = TABLES / "concepts.yaml") -> list[Concept]:
    """The concepts in the order of their class numbers."""
    return list(_read(yaml.safe_load(path.read_text())))


def _read(table: dict[str, dict[str, str | dict[str, str]]]) -> Iterator[Concept]:
    for category, concepts in table.items():
        for name, icons in concepts.items():
            if isinstance(icons, str):
                yield Concept(name, category, icons)
            else:
                chosen = dict(icons)
                tint = chosen.pop(TINTED, None)
                yield Concept(name, category, chosen, tint)
