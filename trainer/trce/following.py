"""TRCE stage 2, which prompts its trajectories follow."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from core.phrases import mentions
from trainer.concepts import PromptPair
from trainer.preservation import NEIGHBOUR, CaptionGroup

Item = TypeVar("Item")


def pairs_to_follow(
    pairs: Mapping[str, Sequence[PromptPair]], count: int, *, seed: int
) -> list[PromptPair]:
    """`count` of the pairs, or all when there are fewer: as many of each concept as of others.

    Args:
        pairs: concept name -> its pairs.
    """
    draw = random.Random(seed)  # noqa: S311  (prompts are no secret)
    shuffled = [draw.sample(one, len(one)) for one in pairs.values()]
    return _in_turn(shuffled, count, draw)


def captions_to_follow(
    groups: Iterable[CaptionGroup], count: int, *, erased: Sequence[str], seed: int
) -> list[str]:
    """`count` captions that speak of nothing erased: as many of each group as of others.

    All neighbours are one group here, as they are to stage 1; of it those that weigh more come
    earlier.
    """
    draw = random.Random(seed)  # noqa: S311  (prompts are no secret)
    neighbours: list[tuple[float, str]] = []
    others = []
    for group in groups:
        captions = [one for one in group.captions if one and mentions(one, erased) is None]
        if group.name.startswith(NEIGHBOUR):
            # Efraimidis and Spirakis 2006: in this order each is next with odds of its weight.
            neighbours += [(draw.random() ** (1 / group.weight), one) for one in captions]
        else:
            others.append(draw.sample(captions, len(captions)))
    nearest = [caption for _, caption in sorted(neighbours, reverse=True)]
    return _in_turn(filter(None, [*others, nearest]), count, draw)


def _in_turn(groups: Iterable[Sequence[Item]], count: int, draw: random.Random) -> list[Item]:
    """`count` items, the next of each group in turn; whose turn is first, `draw` decides."""
    shuffled = list(groups)
    draw.shuffle(shuffled)
    rounds = chain.from_iterable(zip_longest(*shuffled))
    return [item for item in rounds if item is not None][:count]
