"""English articles: "an axe", "a bow and arrow", "brass knuckles"."""

import re
from importlib import resources

import yaml

_words = yaml.safe_load((resources.files("trainer") / "articles.yaml").read_text())
DETERMINERS = frozenset(_words["determiners"].split())
UNCOUNTABLE = frozenset(_words["uncountable"].split())
SINGULAR_S = frozenset(_words["singular although they end in s"].split())
# The noun that decides stands before the first of these.
AFTER_THE_NOUN = re.compile(
    r"\s(?:of|with|that|which|who|for|in|on|at|by|from|to|full|made|under|over|behind|and|or)\s"
)
VOWEL_SOUND = re.compile(r"(?:[aeiou]|hour|honest|honou?r|heir|8|11(?!\d)|18(?!\d))")
# They begin with the sound of "you" or "won".
CONSONANT_SOUND = re.compile(r"(?:uni(?!n|m)|u[bst][aeiu]|use|eu|ewe|one\b|once\b|ufo)")
SPELLED_OUT = re.compile(r"[A-Z]{2,}\b|[A-Z]{1,3}-?\d|[A-Z]\b")
VOWEL_LETTERS = frozenset("AEFHILMNORSX")


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an", if it needs one.

    Phrases that bring a determiner stay as they are, and so do plurals and substances.
    """
    if phrase.split(maxsplit=1)[0].casefold() in DETERMINERS or _takes_no_article(phrase):
        return phrase
    return f"{'an' if _starts_with_vowel_sound(phrase) else 'a'} {phrase}"


def _takes_no_article(phrase: str) -> bool:
    noun = AFTER_THE_NOUN.split(phrase, maxsplit=1)[0].split()[-1].casefold()
    plural = (
        noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in SINGULAR_S
    )
    return plural or noun in UNCOUNTABLE


def _starts_with_vowel_sound(phrase: str) -> bool:
    if SPELLED_OUT.match(phrase):
        return phrase[0] in VOWEL_LETTERS
    word = phrase.casefold()
    return bool(VOWEL_SOUND.match(word)) and not CONSONANT_SOUND.match(word)
