"""Concepts to erase -> pairs of prompts: one shows the concept, one its replacement."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from core.phrases import without_article
from core.specs import Concept, TextualOptions
from trainer.articles import with_article


@dataclass(frozen=True)
class PromptPair:
    """Two prompts that differ in the concept alone."""

    unsafe: str
    safe: str
    weight: float
    """The pairs of one word share a weight of 1, however many there are."""


@cache
def templates(kind: str) -> tuple[str, ...]:
    """The sentences for one kind of concept, see `templates.yaml`."""
    text = (resources.files("trainer") / "templates.yaml").read_text()
    return tuple(yaml.safe_load(text)[kind])


def fill(template: str, words: str) -> str:
    return template.replace("{a}", with_article(words)).replace("{}", words)


def prompt_pairs(concepts: Sequence[Concept]) -> dict[str, tuple[PromptPair, ...]]:
    """Concept name -> its pairs: every word in every sentence of the concept's kind.

    A phrase listed twice, with and without its article or under two concepts, counts once: its
    duplicates would double its weight in the closed form.
    """
    seen: set[str] = set()
    pairs = {}
    for concept in concepts:
        fresh = []
        for phrase in concept.words:
            if without_article(phrase) not in seen:
                seen.add(without_article(phrase))
                fresh += _pairs_of_phrase(concept, phrase)
        pairs[concept.name] = tuple(fresh)
    return pairs


def _pairs_of_phrase(concept: Concept, phrase: str) -> list[PromptPair]:
    safe_of = {
        fill(template, phrase): fill(template, concept.replacement)
        for template in reversed(templates(concept.kind))
    }
    return [PromptPair(unsafe, safe, 1 / len(safe_of)) for unsafe, safe in safe_of.items()]


def words_move(concept: Concept, options: TextualOptions) -> bool:
    """A style is a word or two of a prompt; the [EoT]s, which read it all, tell little of it."""
    return options.moved_words == "all" or (
        options.moved_words == "styles" and concept.kind == "style"
    )
