"""TRCE stage 2, which prompts its trajectories follow."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from core.phrases import mentions
from trainer.concepts import PromptPair
from trainer.preservation import CaptionGroup

Item = TypeVar("Item")


def pairs_to_follow(
    pairs: Mapping[str, Sequence[PromptPair]], count: int, *, seed: int
) -> list[PromptPair]:
    """`count` of the pairs, or all when there are fewer: as many of each concept as of others.

    Args:
        pairs: concept name -> its pairs.
    """
    return _in_turn(pairs.values(), count, seed)


def captions_to_follow(
    groups: Iterable[CaptionGroup], count: int, *, erased: Sequence[str], seed: int
) -> list[str]:
    """`count` captions that speak of nothing erased: as many of each group as of others."""
    captions = [
        [one for one in group.captions if one and mentions(one, erased) is None]
        for group in groups
    ]
    return _in_turn(filter(None, captions), count, seed)


def _in_turn(groups: Iterable[Sequence[Item]], count: int, seed: int) -> list[Item]:
    """`count` items, one of each group in turn, in an order that the seed decides."""
    draw = random.Random(seed)  # noqa: S311  (prompts are no secret)
    shuffled = [draw.sample(group, len(group)) for group in groups]
    draw.shuffle(shuffled)
    rounds = chain.from_iterable(zip_longest(*shuffled))
    return [item for item in rounds if item is not None][:count]
