"""Suites: what a model and its base are asked, built from what the base says it can draw."""

import itertools
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.errors import Invalid
from core.phrases import without_article
from core.reports import digest_of
from core.thresholds import KEPT_SUITES
from diffusion.model_concepts import KnownConcept, ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.articles import with_article
from trainer.neighbours import nearest

Split = Literal["tuning", "test"]

SENTENCES: dict[Split, str] = {"tuning": "a picture of {}", "test": "an image of {}"}
"""Neither is among the sentences that erasure uses; each split has its own."""
PAIRS_EACH = 3
"""Prompts with two concepts, for each that was erased."""
NEIGHBOURS = 30


@dataclass(frozen=True)
class Question:
    prompt: str
    concept: str | None
    """The concept that a right picture shows; None: nothing can tell."""
    seed: int | None = None
    """None: the evaluation's own."""
    guidance_scale: float | None = None
    accepted: tuple[str, ...] = ()
    """Other concepts that a right picture may show."""


@dataclass(frozen=True)
class Suite:
    name: str
    kind: Literal["erased", "kept"]
    split: Split | None
    source: str
    questions: tuple[Question, ...]
    stride: int = 1
    """`questions` are every so manyth of the whole suite's."""

    @property
    def places(self) -> range:
        """Where each question stands in the whole suite: its seed does not change by thinning."""
        return range(0, self.stride * len(self.questions), self.stride)

    @property
    def digest(self) -> str:
        return digest_of(
            [f"{q.prompt}\t{q.concept}\t{q.seed}\t{q.guidance_scale}" for q in self.questions]
        )

    def thinned(self, at_most: int | None) -> "Suite":
        """Every k-th question, so that at most that many are left."""
        if at_most is None or not self.questions:
            return self
        step = -(-len(self.questions) // at_most)
        return replace(self, questions=self.questions[::step], stride=self.stride * step)


def targets_of(known: ModelConcepts, words: Collection[str]) -> tuple[KnownConcept, ...]:
    """The base's concepts that some of the words mean: by name, synonym or group.

    Raises:
        Invalid: none of the words means anything that the base draws.
    """
    meant = {without_article(word) for word in words}
    found = tuple(
        concept
        for concept in known.concepts
        if meant & {concept.name, *concept.synonyms, concept.group, *concept.groups}
    )
    if not found:
        raise Invalid(
            f"target: the base draws nothing called {', '.join(sorted(words)[:5])}; its groups "
            f"are {', '.join(known.groups)}"
        )
    return found


def classes_of(known: ModelConcepts, targets: Sequence[KnownConcept]) -> tuple[str, ...]:
    """The fewest groups and names that mean exactly the targets: what a detector looks for."""
    left = {concept.name for concept in targets}
    names = frozenset(left)
    chosen = []
    for group in sorted(known.groups, key=lambda g: (-len(known.members(g)), g)):
        members = known.members(group)
        if members <= names and members & left:
            chosen.append(group)
            left -= members
    return (*chosen, *sorted(left))


def built_in(
    name: str,
    known: ModelConcepts,
    targets: Sequence[KnownConcept],
    encoder: PromptEncoder,
    split: Split,
    *,
    seed: int,
) -> Suite:
    """One of `core.evaluation.SUITES` for a base model with a concepts.json."""
    sentence = SENTENCES[split]
    others = [concept for concept in known.concepts if concept not in targets]
    places = nearest(
        encoder,
        [concept.noun for concept in targets],
        [concept.noun for concept in others],
        count=min(NEIGHBOURS, len(others) // 3),
    )
    near = [others[place] for place in places]

    def asked(
        concepts: Iterable[KnownConcept], phrases: Callable[[KnownConcept], Iterable[str]]
    ) -> tuple[Question, ...]:
        return tuple(
            Question(text, concept.name) for concept in concepts for text in phrases(concept)
        )

    def synonyms(concept: KnownConcept) -> list[str]:
        words = concept.synonyms if split == "tuning" else concept.held_out_synonyms
        return [sentence.format(with_article(word)) for word in words]

    def by_name(concept: KnownConcept) -> list[str]:
        return [sentence.format(concept.noun)]

    match name:
        case "explicit":
            questions = asked(targets, by_name)
        case "synonyms":
            questions = asked(targets, synonyms)
        case "descriptions":
            questions = asked(
                targets,
                lambda c: c.tuning_descriptions if split == "tuning" else c.test_descriptions,
            )
        case "multi-concept":
            questions = _pairs(targets, others, sentence, seed=seed)
        case "neighbours":
            questions = asked(near, by_name)
        case _:
            questions = asked([c for c in others if c not in near], by_name)
    kind: Literal["erased", "kept"] = "kept" if name in KEPT_SUITES else "erased"
    return Suite(name, kind, split, "built-in", questions)


def _pairs(
    targets: Sequence[KnownConcept],
    others: Sequence[KnownConcept],
    sentence: str,
    *,
    seed: int,
) -> tuple[Question, ...]:
    """Each target beside other things, now before and now after them; and beside a target."""
    draw = random.Random(seed)  # noqa: S311  (a choice of prompts is no secret)
    sides = itertools.cycle((False, True))
    questions = []
    for target in targets:
        partners = draw.sample(list(others), min(PAIRS_EACH - 1, len(others)))
        rest = [other for other in targets if other is not target]
        partners += draw.sample(rest, min(1, len(rest)))
        for partner in partners:
            pair = (target, partner) if next(sides) else (partner, target)
            text = sentence.format(" and ".join(concept.noun for concept in pair))
            questions.append(Question(text, target.name, accepted=(partner.name,)))
    return tuple(questions)
