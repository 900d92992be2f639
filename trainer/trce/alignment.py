"""Two prompts that differ in a phrase: which of their words stand beside each other."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile


def align(unsafe: Sequence[int], safe: Sequence[int]) -> list[tuple[int, int]]:
    """(position, partner's position) of each token of `unsafe` from the first that differs.

    What stands before it has read the same in both prompts, and is the same. Where the phrases
    have different lengths, one is stretched over the other; the words after them keep their order.

    Args:
        unsafe: token ids without the end-of-text token, and so `safe`.
    """
    before = _length(_same(zip(unsafe, safe, strict=False)))
    room = min(len(unsafe), len(safe)) - before
    after = min(room, _length(_same(zip(reversed(unsafe), reversed(safe), strict=False))))
    differ, instead = len(unsafe) - before - after, len(safe) - before - after
    # With nothing in their place, the word before stands for it.
    phrase = [
        (before + place, before + place * instead // differ if instead else before - 1)
        for place in range(differ)
    ]
    return phrase + [(len(unsafe) - back, len(safe) - back) for back in range(after, 0, -1)]


def _same(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return takewhile(lambda pair: pair[0] == pair[1], pairs)


def _length(items: Iterable[object]) -> int:
    return sum(1 for _ in items)
