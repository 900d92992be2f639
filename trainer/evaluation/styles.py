"""A drawing style as something to erase: prompts that ask for it, and what tells it in a picture.

The classifier that comes with a model names things, not styles. Of the shipped model's styles
"ink" is black on white, which pixels tell.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from diffusion.detectors.protocol import DetectorIdentity
from diffusion.model_concepts import ModelConcepts
from trainer.evaluation.suites import SENTENCES, Question, Split, Suite

COLOURED = 8.0
"""Mean spread of the three channels, of 255, in a picture that has colour.

Of the base's pictures of twenty things, those in ink have 1 to 5; of those in another style or in
none, all but two have more than 4: white and grey things have no more colour in any style.
"""


class Colourless:
    """Says of a picture that it has no colour: 1 for black and white, 0 for colours."""

    def __init__(self, style: str) -> None:
        self.identity = DetectorIdentity(
            name="colourless", version="1", classes=(style,), threshold=0.5
        )

    def scores(self, pictures: Sequence[Image.Image]) -> list[Mapping[str, float]]:
        [style] = self.identity.classes
        return [{style: max(0.0, 1 - chroma(picture) / COLOURED)} for picture in pictures]


def chroma(picture: Image.Image) -> float:
    """The mean over pixels of the largest less the smallest channel, of 255."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def style_suites(
    known: ModelConcepts, style: str, other: str, split: Split, *, every: int
) -> list[Suite]:
    """Things in the erased style; the same things in another, and in none.

    Args:
        every: every how many of the model's things are asked for; the two splits share none.
    """
    offset = 0 if split == "tuning" else every // 2
    things = known.concepts[offset::every]

    def asked(ending: str) -> tuple[Question, ...]:
        sentence = SENTENCES[split]
        return tuple(Question(sentence.format(one.noun) + ending, one.name) for one in things)

    return [
        Suite("in the style", "erased", split, "built-in", asked(f" in {style} style")),
        Suite("things in the style", "kept", split, "built-in", asked(f" in {style} style")),
        Suite("in another style", "kept", split, "built-in", asked(f" in {other} style")),
        Suite("in no style", "kept", split, "built-in", asked("")),
    ]
