"""What a model says it can draw: `concepts.json` in its folder, if there is one."""

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import ModelUnsupported

FILENAME = "concepts.json"


class KnownConcept(BaseModel):
    """One thing the model was taught, and how its captions called it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    group: str
    """What kind of thing it is: "weapon", "animal" ..."""
    synonyms: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()

    @property
    def phrases(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms, *self.descriptions)


class ModelConcepts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    concepts: tuple[KnownConcept, ...]

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """What the model in `folder` says of itself; None when it says nothing.

        Raises:
            ModelUnsupported: the file is there and cannot be understood.
        """
        path = folder / FILENAME
        if not path.is_file():
            return None
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except (ValidationError, ValueError) as error:
            raise ModelUnsupported(
                f"{folder.name}/{FILENAME} is not understood: {error}"
            ) from error

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(phrase for concept in self.concepts for phrase in concept.phrases)

    def group_of(self, name: str) -> str:
        """Raises KeyError."""
        return next(concept.group for concept in self.concepts if concept.name == name)
