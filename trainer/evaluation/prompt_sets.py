"""What a model is asked, to see whether a group of concepts is gone and the rest still there."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from core.phrases import without_article
from diffusion.model_concepts import KnownConcept, ModelConcepts
from trainer.articles import with_article

Split = Literal["tuning", "test"]

SENTENCE = "a picture of {}"
"""Not among the sentences that erasure uses."""


@dataclass(frozen=True)
class Question:
    prompt: str
    answer: str
    """The name of the concept that the prompt asks for."""


@dataclass(frozen=True)
class PromptSet:
    name: str
    questions: tuple[Question, ...]

    def thinned(self, at_most: int | None) -> "PromptSet":
        """Every k-th question, so that at most that many are left."""
        if at_most is None or not self.questions:
            return self
        return PromptSet(self.name, self.questions[:: -(-len(self.questions) // at_most)])


def erased_sets(
    known: ModelConcepts, group: str, split: Split, *, told: Collection[str]
) -> tuple[PromptSet, ...]:
    """Prompts for every member of an erased group, by how far they are from what was erased.

    Args:
        told: the words that the erasure was told; the others of the model's own words, and the
            descriptions of the split, are new to it.
    """
    members = known.members(group)
    erased = [concept for concept in known.concepts if concept.name in members]
    heard = {without_article(word) for word in told}

    def synonyms(concept: KnownConcept, *, known_to_erasure: bool) -> list[str]:
        every = (*concept.synonyms, *concept.held_out_synonyms)
        return [
            SENTENCE.format(with_article(word))
            for word in every
            if (without_article(word) in heard) is known_to_erasure
        ]

    def unseen(concept: KnownConcept) -> Iterable[str]:
        return concept.tuning_descriptions if split == "tuning" else concept.test_descriptions

    return (
        _prompt_set("names", erased, lambda concept: [SENTENCE.format(concept.noun)]),
        _prompt_set("synonyms told", erased, lambda c: synonyms(c, known_to_erasure=True)),
        _prompt_set("synonyms not told", erased, lambda c: synonyms(c, known_to_erasure=False)),
        _prompt_set("captioned descriptions", erased, lambda concept: concept.descriptions),
        _prompt_set(f"unseen descriptions ({split})", erased, unseen),
    )


def other_set(known: ModelConcepts, group: str) -> PromptSet:
    """The names of everything outside the group."""
    members = known.members(group)
    others = [concept for concept in known.concepts if concept.name not in members]
    return _prompt_set("others", others, lambda concept: [SENTENCE.format(concept.noun)])


def _prompt_set(
    name: str,
    concepts: Iterable[KnownConcept],
    prompts: Callable[[KnownConcept], Iterable[str]],
) -> PromptSet:
    return PromptSet(
        name,
        tuple(Question(text, concept.name) for concept in concepts for text in prompts(concept)),
    )
