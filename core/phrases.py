"""When two phrases are the same words, and when a text speaks of one."""

import re
from collections.abc import Iterable
from functools import lru_cache


def without_article(phrase: str) -> str:
    """The phrase without a leading "a", "an" or "the", in lower case: what it is about.

    White space of any kind and length is one space, as it is to a tokenizer.
    """
    return re.sub(r"^(?:an?|the) ", "", _plain(phrase))


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
    if plain.endswith("ives"):
        found.add(f"{plain[:-3]}fe")
    if re.search(r"(?:l|ar|ea|oa|ie)ves$", plain):
        found.add(f"{plain[:-3]}f")
    # Of "as" nothing is left that means anything.
    return {form for form in found if len(form) > 1 or form == plain}


def with_plural(singular: str) -> str:
    """A pattern that matches a phrase and its plural: the counterpart of `singulars`."""
    regular = f"{re.escape(singular)}(?:s|es)?"
    if singular.endswith("y"):
        return f"{regular}|{re.escape(singular[:-1])}ies"
    if singular.endswith("ife"):
        return f"{regular}|{re.escape(singular[:-2])}ves"
    if re.search(r"(?:l|ar|ea|oa|ie)f$", singular):
        return f"{regular}|{re.escape(singular[:-1])}ves"
    return regular


def mentions(text: str, phrases: Iterable[str]) -> str | None:
    """The first of the phrases that stands in the text as whole words.

    In singular or plural, whichever of them the phrase is in.
    """
    listed = tuple(phrases)
    plain = _plain(text)
    if not listed or not _any_of(listed).search(plain):
        return None
    return next(phrase for phrase in listed if _any_of((phrase,)).search(plain))


@lru_cache(maxsize=1024)
def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    forms = {form for phrase in phrases for form in singulars(phrase)}
    words = "|".join(with_plural(form) for form in sorted(forms))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)")


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
