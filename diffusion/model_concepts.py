"""What a model says it can draw: `concepts.json` in its folder, if there is one."""

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import ModelUnsupported
from core.manifests import Manifest
from core.model_files import ModelFiles

FILENAME = "concepts.json"


class KnownConcept(BaseModel):
    """One thing the model was taught, and how its captions called it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    group: str
    """What kind of thing it is: "weapon", "animal" ..."""
    groups: tuple[str, ...] = ()
    """The same and narrower or other ones: "weapon" and "blade"."""
    article: str = ""
    """What stands before the name: "a", "an", "the", or nothing."""
    synonyms: tuple[str, ...] = ()
    held_out_synonyms: tuple[str, ...] = ()
    """Names that no caption used."""
    descriptions: tuple[str, ...] = ()
    tuning_descriptions: tuple[str, ...] = ()
    """Captioned never; settings are chosen with these."""
    test_descriptions: tuple[str, ...] = ()
    """Captioned never and tuned on never; figures are reported with these."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """What captions called it."""
        return (self.name, *self.synonyms, *self.descriptions)

    @property
    def noun(self) -> str:
        """The name with its article: "an axe"."""
        return f"{self.article} {self.name}".strip()


class ModelConcepts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    concepts: tuple[KnownConcept, ...]

    @classmethod
    def of(cls, folder: Path, manifest: Manifest | None = None) -> Self | None:
        """What the model in `folder` says of itself; None when it says nothing.

        Raises:
            ModelUnsupported: the file is there and cannot be understood.
            UntrustedModel: it is not as the manifest says, if there is one.
        """
        return cls.among(ModelFiles(folder, manifest))

    @classmethod
    def among(cls, files: ModelFiles) -> Self | None:
        """The same of a model's files. Raises ModelUnsupported, UntrustedModel."""
        if FILENAME not in files:
            return None
        try:
            return cls.model_validate(json.loads(files.read(FILENAME)))
        except (ValidationError, ValueError) as error:
            raise ModelUnsupported(
                f"{files.folder.name}/{FILENAME} is not understood: {error}"
            ) from error

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(phrase for concept in self.concepts for phrase in concept.phrases)

    @property
    def groups(self) -> tuple[str, ...]:
        """The name of every group that has a member, sorted."""
        return tuple(sorted({g for one in self.concepts for g in (one.group, *one.groups)}))

    def knows(self, name: str) -> bool:
        """Whether it is the name of a concept or of a group."""
        return name in self.groups or any(concept.name == name for concept in self.concepts)

    def members(self, group: str) -> frozenset[str]:
        """The names of the concepts in a group.

        Raises:
            ModelUnsupported: no concept is in it.
        """
        found = frozenset(
            concept.name for concept in self.concepts if group in (concept.group, *concept.groups)
        )
        if not found:
            raise ModelUnsupported(f"this model knows no concepts of the group {group!r}")
        return found
