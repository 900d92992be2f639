"""The table of picture sets: which styles, extras and judges there are, and their packages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

from trainer.pretraining.concepts import TINTED
from trainer.pretraining.folders import TABLES


@dataclass(frozen=True)
class SetTable:
    """`tables/sets.yaml`."""

    styles: dict[str, str]
    extras: list[str]
    judges: list[str]
    sets: dict[str, dict[str, str]]

    @classmethod
    def load(cls, path: Path = TABLES / "sets.yaml") -> Self:
        return cls(**yaml.safe_load(path.read_text()))

    @property
    def style_names(self) -> list[str]:
        """Styles in the order of their numbers; the last is the style-less one."""
        return [*self.styles, TINTED]
