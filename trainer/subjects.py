"""What samples show: concepts that are being erased, and something that is to stay."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.specs import Concept, ErasureSpec
from diffusion.model_concepts import ModelConcepts
from trainer.articles import with_article
from trainer.concepts import fill, templates
from trainer.preservation import CaptionGroup, caption_groups
from trainer.trce.following import captions_to_follow


@dataclass(frozen=True)
class Subject:
    prompt: str
    seed: int


def subjects(
    concepts: Sequence[Concept], spec: ErasureSpec, known: ModelConcepts | None, count: int
) -> list[Subject]:
    """`count` of them: concepts in turn, each in another sentence; the last is to stay.

    Args:
        concepts: at least one.
        known: what the base says it can draw.
    """
    last = [_neighbour(concepts, spec, known)] if count > 1 else []
    stays = [caption for caption in last if caption is not None]
    prompts = []
    for number in range(count - len(stays)):
        turn, place = divmod(number, len(concepts))
        sentences = templates(concepts[place].kind)
        # The first is the bare words.
        prompts.append(fill(sentences[(1 + turn) % len(sentences)], concepts[place].name))
    return [Subject(one, spec.seed + place) for place, one in enumerate([*prompts, *stays])]


def _neighbour(
    concepts: Sequence[Concept], spec: ErasureSpec, known: ModelConcepts | None
) -> str | None:
    """The first that is protected; else a thing the base knows, or a caption, that stays."""
    if spec.textual.protect:
        return with_article(spec.textual.protect[0].name)
    if known is not None:
        # By their names: among its other phrases are odd ones.
        names = tuple(one.noun for one in known.concepts)
        groups: tuple[CaptionGroup, ...] = (CaptionGroup("known", names, 1.0),)
    else:
        groups = caption_groups(known=None, protect=(), seed=spec.seed, own=spec.textual.captions)
    erased = [word for concept in concepts for word in concept.words]
    return next(iter(captions_to_follow(groups, 1, erased=erased, seed=spec.seed)), None)
