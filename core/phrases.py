"""When two phrases are the same words, and when a text speaks of one."""

import re
from collections.abc import Iterable
from functools import lru_cache


def without_article(phrase: str) -> str:
    """The phrase without a leading "a", "an" or "the", in lower case: what it is about."""
    return re.sub(r"^(?:an?|the)\s+", "", phrase.casefold().strip())


def singulars(phrase: str) -> set[str]:
    """The phrase without its article, and what it may be the plural of (axes: axe, ax)."""
    plain = without_article(phrase)
    found = {plain}
    if plain.endswith("s") and not plain.endswith("ss"):
        found.add(plain[:-1])
    if re.search(r"(?:[sxzo]|ch|sh)es$", plain):
        found.add(plain[:-2])
    if plain.endswith("ies"):
        found.add(f"{plain[:-3]}y")
    return found


def mentions(text: str, phrases: Iterable[str]) -> str | None:
    """The first of the phrases that stands in the text as whole words, in singular or plural."""
    listed = tuple(phrases)
    lowered = text.casefold()
    if not listed or not _any_of(listed).search(lowered):
        return None
    return next(phrase for phrase in listed if _any_of((phrase,)).search(lowered))


@lru_cache(maxsize=1024)
def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    words = "|".join(re.escape(without_article(phrase)) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{words})(?:s|es)?(?!\w)")
