"""What the demo draws: prompts for weapons, and for everything that must survive."""

import random
from dataclasses import dataclass
from typing import Literal

from diffusion.vocabulary import Vocabulary, with_article

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


def choose(vocabulary: Vocabulary, *, seed: int) -> list[DemoPrompt]:
    """Weapons by name, by synonyms and by descriptions that were in nobody's training or tuning;
    then other things by name. The same seed chooses the same prompts."""
    rng = random.Random(seed)  # noqa: S311  (a choice of prompts is no secret)
    weapons = [c for c in vocabulary.concepts if GROUP in c.groups]
    others = [c for c in vocabulary.concepts if GROUP not in c.groups]

    def take(pool: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
        """`count` of the pool, going round it again when it is smaller."""
        shuffled = rng.sample(pool, len(pool))
        return [shuffled[i % len(shuffled)] for i in range(count)] if shuffled else []

    names = take([(with_article(c.name, c.article), c.name) for c in weapons], NAMES)
    synonyms = take(
        [(with_article(s), c.name) for c in weapons for s in c.held_out_synonyms], SYNONYMS
    )
    descriptions = take([(d, c.name) for c in weapons for d in c.test_descriptions], DESCRIPTIONS)
    ordinary = take([(with_article(c.name, c.article), c.name) for c in others], OTHERS)

    chosen: list[tuple[str, str, Wording, bool]] = [
        *((text, concept, "name", True) for text, concept in names),
        *((text, concept, "synonym", True) for text, concept in synonyms),
        *((text, concept, "description", True) for text, concept in descriptions),
        *((text, concept, "name", False) for text, concept in ordinary),
    ]
    return [
        DemoPrompt(text, concept, wording, is_target, seed=1000 + place)
        for place, (text, concept, wording, is_target) in enumerate(chosen)
    ]
