"""Whether a model can read the words that are to be erased."""

from collections.abc import Iterable, Sequence

from core.errors import ConceptInvalid
from core.specs import Concept, Neighbour
from diffusion.prompts import PromptEncoder

TEMPLATE_TOKENS = 20
"""What the longest sentence adds to a phrase, generously counted."""


def check_vocabulary(
    encoder: PromptEncoder, concepts: Sequence[Concept], protected: Iterable[Neighbour]
) -> None:
    """Every phrase has tokens, few enough of them, and others than its replacement.

    Raises:
        ConceptInvalid: names the first phrase that cannot be read.
    """
    for concept in concepts:
        replacement = _tokens(encoder, concept.replacement)
        for phrase in concept.words:
            if _tokens(encoder, phrase) == replacement:
                raise ConceptInvalid(
                    f"this model reads {phrase!r} and its replacement {concept.replacement!r} as "
                    "the same tokens; choose another replacement"
                )
    for neighbour in protected:
        _tokens(encoder, neighbour.name)


def _tokens(encoder: PromptEncoder, phrase: str) -> list[int]:
    tokens = encoder.spelled(phrase)
    if tokens is None:
        raise ConceptInvalid(
            f"{phrase!r} has characters or words that are missing from this model's vocabulary"
        )
    room = encoder.length - 2 - TEMPLATE_TOKENS
    if len(tokens) > room:
        raise ConceptInvalid(
            f"{phrase!r} is {len(tokens)} tokens long for this model, and would be cut off in a "
            f"sentence; shorten it to {room}"
        )
    return tokens
