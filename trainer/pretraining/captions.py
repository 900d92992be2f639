"""Captions of a picture: its concept's name, a synonym or a description, in a sentence or bare."""

import random
from dataclasses import dataclass
from typing import Self

import yaml

from trainer.pretraining.folders import TABLES
from trainer.pretraining.vocabulary import Vocabulary

NAMED = (
    "{}",
    "{}",
    "a picture of {}",
    "a photo of {}",
    "an image of {}",
    "a drawing of {}",
    "an illustration of {}",
    "an icon of {}",
    "an emoji of {}",
    "a cartoon of {}",
    "a painting of {}",
    "a sketch of {}",
    "a sticker with {}",
    "a picture that shows {}",
    "a small picture of {}",
    "a clean drawing of {}",
    "{} on a white background",
    "clip art of {}",
    "draw {}",
    "show me {}",
    "this is {}",
    "a nice picture of {}",
)
DESCRIBED = (
    "{}",
    "{}",
    "{}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a photo of {}",
    "an illustration of {}",
    "draw {}",
)
TOLD = ("{}", "{}", "{}, a picture", "an icon: {}", "draw this: {}")
"""For descriptions that are sentences and not things."""
STYLED = (
    "{}, {s} style",
    "{} in {s} style",
    "{} in the style of {s}",
    "{} drawn in {s} style",
    "{s} style, {}",
    "a {s} picture: {}",
)
THINGS = ("a ", "an ", "the ", "what ", "something ", "two ", "how ", "where ")
"""How descriptions of things begin; the others are sentences."""

NAME_SHARE, SYNONYM_SHARE, DESCRIPTION_SHARE = 0.38, 0.22, 0.34
"""What a caption is built on; glosses take the rest."""


@dataclass(frozen=True)
class Articles:
    """`tables/articles.yaml`."""

    none: set[str]
    the: set[str]
    an: set[str]
    a: set[str]

    @classmethod
    def load(cls) -> Self:
        table = yaml.safe_load((TABLES / "articles.yaml").read_text())
        return cls(**{key: set(words) for key, words in table.items()})

    def of(self, name: str) -> str:
        """ "a", "an", "the" or "" for a name or synonym."""
        for article in ("the", "an", "a"):
            if name in getattr(self, article):
                return article
        if name in self.none:
            return ""
        return "an" if name[0] in "aeiou" else "a"

    def named(self, name: str) -> str:
        """The name behind its article."""
        return f"{self.of(name)} {name}".strip()


@dataclass(frozen=True)
class Caption:
    """`core` is the bare name, synonym or description inside `text`."""

    text: str
    core: str
    styled: bool


class Captioner:
    """Writes captions from the captioned words of a vocabulary, and from no others."""

    def __init__(self, vocabularies: dict[str, Vocabulary], articles: Articles, seed: int) -> None:
        self.vocabularies = vocabularies
        self.articles = articles
        self.order = random.Random(seed)

    def caption(self, name: str, style: str | None, *, style_share: float = 0.5) -> Caption:
        """A caption of a picture of `name` drawn in `style` (None where it has no style)."""
        words, choose = self.vocabularies[name], self.order.choice
        pick = self.order.random()
        if pick < NAME_SHARE + SYNONYM_SHARE:
            core = name if pick < NAME_SHARE else choose(words.called)
            thing = self.articles.named(core) if self.order.random() < 0.8 else core
            text = choose(NAMED).format(thing)
        else:
            described = pick < NAME_SHARE + SYNONYM_SHARE + DESCRIPTION_SHARE
            core = choose(words.train if described or not words.glosses else words.glosses)
            text = choose(DESCRIBED if core.startswith(THINGS) else TOLD).format(core)
        styled = style is not None and self.order.random() < style_share
        if styled:
            text = choose(STYLED).format(text, s=style)
        return Caption(text, core, styled)
