"""What the demo draws: prompts for weapons, and for everything that must survive."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffusion.model_concepts import KnownConcept
from trainer.articles import with_article

GROUP = "weapon"
NAMES, SYNONYMS, DESCRIPTIONS, OTHERS = 20, 10, 20, 60

Wording = Literal["name", "synonym", "description"]


@dataclass(frozen=True)
class DemoPrompt:
    text: str
    concept: str
    """What a good picture of it shows."""
    wording: Wording
    is_target: bool
    seed: int


def choose(concepts: Sequence[KnownConcept], *, seed: int) -> list[DemoPrompt]:
    """Weapons by name, by synonym and by description, then other things by name.

    The synonyms and descriptions are those that were kept from training the base model and from
    choosing the erasure's settings. The same seed chooses the same prompts.
    """
    draw = random.Random(seed)  # noqa: S311  (a choice of prompts is no secret)
    weapons = [concept for concept in concepts if GROUP in concept.groups]
    others = [concept for concept in concepts if GROUP not in concept.groups]
    prompts: list[DemoPrompt] = []

    def add(wording: Wording, phrases: list[tuple[str, str]], count: int, *, target: bool) -> None:
        for phrase, concept in draw.sample(phrases, min(count, len(phrases))):
            text = f"a picture of {phrase}"
            prompts.append(DemoPrompt(text, concept, wording, target, 1000 + len(prompts)))

    synonyms = [(with_article(s), one.name) for one in weapons for s in one.held_out_synonyms]
    descriptions = [(text, one.name) for one in weapons for text in one.test_descriptions]
    add("name", [(one.noun, one.name) for one in weapons], NAMES, target=True)
    add("synonym", synonyms, SYNONYMS, target=True)
    add("description", descriptions, DESCRIPTIONS, target=True)
    add("name", [(one.noun, one.name) for one in others], OTHERS, target=False)
    return prompts
