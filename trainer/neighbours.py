"""Neighbours: what a model reads most like what is erased, which an erasure harms first.

Whoever erases can name what must survive, but not what a text encoder happens to hold near. Where
a model says what it draws, its nearest concepts are found, and protected as if they were named.
They are written down under the concept that each was found for, so that a merge takes them over
and taking the concept out lets them go.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from core.edits import Edit
from core.phrases import singulars
from core.specs import Concept, ErasureSpec, Neighbour
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.articles import with_article

BATCH = 64


def nearest(
    encoder: PromptEncoder, texts: Sequence[str], others: Sequence[str], *, count: int
) -> dict[int, int]:
    """The places of the `count` others that are read most like one of the texts -> that text's.

    Likeness is the cosine of the states at the first [EoT], after the mean of all was taken off:
    without that all texts look alike.
    """
    if not count or not texts or not others:
        return {}
    states = torch.cat([_states(encoder, phrases) for phrases in (texts, others)])
    unit = torch.nn.functional.normalize(states - states.mean(0), dim=-1)
    likeness, place = (unit[len(texts) :] @ unit[: len(texts)].T).max(dim=1)
    order = likeness.argsort(descending=True, stable=True)[:count].tolist()
    return {other: int(place[other]) for other in sorted(order)}


def _states(encoder: PromptEncoder, texts: Sequence[str]) -> Tensor:
    """(n, d): the state at each text's first [EoT]."""
    found = []
    for batch in encoder.batches(list(texts), size=BATCH):
        rows = torch.arange(len(batch.eot))
        found.append(batch.embeddings[rows, batch.eot.to(batch.embeddings.device)].float().cpu())
    return torch.cat(found)


def find_neighbours(
    encoder: PromptEncoder,
    concepts: Sequence[Concept],
    known: ModelConcepts | None,
    *,
    erased: Sequence[Concept],
    count: int,
) -> dict[str, tuple[str, ...]]:
    """The `count` concepts of the model's own that are nearest to `concepts`, by name of those.

    A third of what the model draws at the most: were everything near, nothing would be.

    Args:
        known: None finds nothing, for nobody says what the model draws.
        erased: all that the new model does not draw, `concepts` among them.
    """
    if known is None:
        return {}
    gone = _forms(word for concept in erased for word in concept.words)
    others = [one for one in known.concepts if not gone & _forms(one.phrases)]
    named = [(concept.name, word) for concept in concepts for word in _names(concept)]
    places = nearest(
        encoder,
        [with_article(word) for _, word in named],
        [one.noun for one in others],
        count=min(count, len(others) // 3),
    )
    found: dict[str, list[str]] = {}
    for other, text in places.items():
        found.setdefault(named[text][0], []).append(others[other].name)
    return {name: tuple(near) for name, near in found.items()}


def _names(concept: Concept) -> tuple[str, ...]:
    return (concept.name, *concept.synonyms)


def _forms(phrases: Iterable[str]) -> set[str]:
    return {form for phrase in phrases for form in singulars(phrase)}


def taken_over(edits: Sequence[Edit], concepts: Sequence[Concept]) -> dict[str, tuple[str, ...]]:
    """What was found for those of the concepts that the merged models erase already."""
    names = {concept.name for concept in concepts}
    return {
        name: tuple(
            dict.fromkeys(near for edit in edits for near in edit.neighbours.get(name, ()))
        )
        for name in sorted({name for edit in edits for name in edit.neighbours} & names)
    }


def protecting(
    spec: ErasureSpec, found: Mapping[str, Sequence[str]], erased: Sequence[Concept]
) -> ErasureSpec:
    """The spec, with what was found among what it protects, but for what is erased.

    All of it, though nobody could send so much: a merge takes over what each of its models found.
    """
    textual = spec.textual
    taken = _forms(one.name for one in textual.protect)
    taken |= _forms(word for concept in erased for word in concept.words)
    names = dict.fromkeys(name for near in found.values() for name in near)
    added = [Neighbour(name=name) for name in names if not taken & singulars(name)]
    protect = (*textual.protect, *added)
    return spec.model_copy(update={"textual": textual.model_copy(update={"protect": protect})})
