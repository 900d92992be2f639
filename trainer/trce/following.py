"""TRCE stage 2, which prompts its trajectories follow."""

import random
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from trainer.concepts import PromptPair


def pairs_to_follow(
    pairs: Mapping[str, Sequence[PromptPair]], count: int, *, seed: int
) -> list[PromptPair]:
    """`count` of the pairs, or all when there are fewer: as many of each concept as of others.

    Args:
        pairs: concept name -> its pairs.
    """
    draw = random.Random(seed)  # noqa: S311  (prompts are no secret)
    shuffled = [draw.sample(of_concept, len(of_concept)) for of_concept in pairs.values()]
    draw.shuffle(shuffled)
    rounds = chain.from_iterable(zip_longest(*shuffled))
    return [pair for pair in rounds if pair is not None][:count]
