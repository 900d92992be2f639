"""What people call each concept, and how they describe it: captioned words and withheld ones."""

import json
import re
from dataclasses import dataclass

import yaml

from trainer.pretraining.concepts import Concept
from trainer.pretraining.folders import TABLES


@dataclass(frozen=True)
class Vocabulary:
    """The words of one concept.

    `called` and `train` appear in captions, with the WordNet `glosses`; `held` synonyms,
    `tuning` and `test` descriptions never do.
    """

    called: list[str]
    held: list[str]
    train: list[str]
    tuning: list[str]
    test: list[str]
    glosses: list[str]


def load(known: list[Concept]) -> dict[str, Vocabulary]:
    """Vocabularies by concept name."""
    glosses = json.loads((TABLES / "glosses.json").read_text())
    table: dict[str, dict[str, str]] = {}
    for path in sorted((TABLES / "words").glob("*.yaml")):
        table |= yaml.safe_load(path.read_text())
    found = {}
    for concept in known:
        words = {key: text.split("; ") for key, text in table[concept.name].items()}
        withheld = words["held"]
        kept = [
            gloss
            for gloss in glosses.get(concept.name, [])
            if not any(contains(gloss, word) for word in withheld)
        ]
        found[concept.name] = Vocabulary(**words, glosses=kept)
    return found


def contains(text: str, phrase: str) -> bool:
    """Whether `phrase` stands in `text` as whole words."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None
