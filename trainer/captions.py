"""Captions of ordinary things: what a model draws day by day, and is to go on drawing."""

import random
from collections.abc import Sequence
from functools import cache
from importlib import resources

import yaml

from trainer.concepts import fill, templates


@cache
def _words() -> dict[str, list[str]]:
    words: dict[str, list[str]] = yaml.safe_load(
        (resources.files("trainer") / "captions.yaml").read_text()
    )
    return words


def general_captions(count: int, *, seed: int) -> list[str]:
    """`count` captions of everyday subjects. Two of three have a scene.

    The same seed gives the same captions.
    """
    draw = random.Random(seed)  # noqa: S311  (captions are no secret)
    words = _words()
    captions = []
    for _ in range(count):
        scene = f" {draw.choice(words['scenes'])}" if draw.random() < 2 / 3 else ""
        subject = draw.choice(words["subjects"])
        captions.append(draw.choice(words["forms"]).replace("{}", subject + scene))
    return captions


def captions_of(
    phrases: Sequence[str], *, each: int, seed: int, at_most: int | None = None
) -> list[str]:
    """`each` captions of every phrase, in the sentences that objects are put into.

    When that makes more than `at_most`, a random choice of them.
    """
    draw = random.Random(seed)  # noqa: S311
    captions = [
        fill(sentence, phrase)
        for phrase in phrases
        for sentence in draw.sample(templates("object"), each)
    ]
    return captions if at_most is None else draw.sample(captions, min(at_most, len(captions)))
