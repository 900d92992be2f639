"""Concepts to erase -> pairs of prompts: one shows the concept, one its replacement."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from core import presets
from core.errors import ConceptInvalid
from core.specs import Concept, ErasureSpec
from trainer.articles import with_article, without_article


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


def concepts_to_erase(spec: ErasureSpec) -> tuple[Concept, ...]:
    """The spec's own concepts or those of its preset.

    Raises:
        ConceptInvalid: no such preset, or the concepts contradict each other.
    """
    concepts = spec.concepts if spec.preset is None else presets.load(spec.preset)
    check_consistent(concepts, spec.textual.protect)
    return concepts


def check_consistent(concepts: Sequence[Concept], protected: Iterable[str]) -> None:
    """No phrase may be sent to two places, kept and erased, or replaced by what is erased.

    Raises:
        ConceptInvalid
    """
    replacement_of: dict[str, Concept] = {}
    for concept in concepts:
        for phrase in concept.words:
            other = replacement_of.setdefault(without_article(phrase), concept)
            if other.replacement != concept.replacement:
                raise ConceptInvalid(
                    f"{phrase!r} is to become both {other.replacement!r} and "
                    f"{concept.replacement!r}; list it under one concept"
                )
    for concept in concepts:
        erased = mentions(concept.replacement, replacement_of)
        if erased is not None:
            raise ConceptInvalid(
                f"the replacement {concept.replacement!r} of {concept.name!r} speaks of "
                f"{erased!r}, which is to be erased; choose something that is to stay"
            )
    for phrase in protected:
        if without_article(phrase) in replacement_of:
            raise ConceptInvalid(f"{phrase!r} is both erased and protected")


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


def mentions(text: str, phrases: Iterable[str]) -> str | None:
    """The first of the phrases that stands in the text as whole words, in singular or plural."""
    for phrase in phrases:
        words = re.escape(without_article(phrase))
        if re.search(rf"(?<!\w){words}(?:s|es)?(?!\w)", text.casefold()):
            return phrase
    return None


def _pairs_of_phrase(concept: Concept, phrase: str) -> list[PromptPair]:
    safe_of = {
        fill(template, phrase): fill(template, concept.replacement)
        for template in reversed(templates(concept.kind))
    }
    return [PromptPair(unsafe, safe, 1 / len(safe_of)) for unsafe, safe in safe_of.items()]
