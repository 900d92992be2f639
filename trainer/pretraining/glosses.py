"""Stage `glosses`: WordNet's definition of each concept, in the sense that our pictures show."""

import json
from pathlib import Path

from trainer.pretraining import vocabulary, wordnet
from trainer.pretraining.concepts import Concept
from trainer.pretraining.folders import TABLES
from trainer.pretraining.teacher import Teacher

ALIKE = 0.4
"""Least cosine between a gloss and the mean of our own descriptions; below it the sense is
another one (a tank is also a cell for violent prisoners)."""


def look_up(known: list[Concept], folder: Path) -> None:
    """Write `tables/glosses.json`: concept name to its gloss, whole and in its parts."""
    senses: dict[str, list[wordnet.Synset]] = {}
    for synset in wordnet.synsets(folder):
        for word in synset.words:
            senses.setdefault(word, []).append(synset)

    teacher, words = Teacher(), vocabulary.load(known)
    chosen = {}
    for concept in known:
        names = [concept.name, *words[concept.name].called]
        texts = [sense.gloss for name in names for sense in senses.get(name, [])]
        if not texts:
            continue
        ours = teacher.embed(words[concept.name].train).mean(0)
        likeness = teacher.embed(texts) @ (ours / ours.norm())
        if likeness.max() > ALIKE:
            gloss = texts[int(likeness.argmax())]
            parts = [wordnet.plain(part) for part in gloss.split(";") if len(part.split()) > 2]
            chosen[concept.name] = list(dict.fromkeys([wordnet.plain(gloss), *parts]))
    (TABLES / "glosses.json").write_text(json.dumps(chosen, indent=1) + "\n")
