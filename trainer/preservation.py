"""K: the second moment of the token embeddings of captions that are to keep their meaning.

It is computed once per text encoder and set of captions, and shared by all concepts; on disk it
lies under the digest of both.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from core.files import write_atomically
from core.specs import Concept
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.captions import captions_of, general_captions
from trainer.concepts import mentions

GENERAL_CAPTIONS = 1000
NAMES_EACH = 3
OTHER_PHRASES = 1000
PROTECTED_EACH = 15
BATCH = 32


@dataclass(frozen=True)
class CaptionGroup:
    """Captions whose moments are averaged; the group then weighs `weight` among the others."""

    name: str
    captions: tuple[str, ...]
    weight: float


def caption_groups(
    erased: Iterable[Concept],
    *,
    known: ModelConcepts | None,
    protect: Sequence[str],
    seed: int,
    general: int = GENERAL_CAPTIONS,
) -> tuple[CaptionGroup, ...]:
    """What to preserve: everyday captions, the empty prompt, the model's own concepts, neighbours.

    The groups weigh the same, whatever their sizes: a protected neighbour among five counts as
    much as two hundred everyday captions. Nothing that speaks of an erased concept is kept.
    """
    words = [word for concept in erased for word in concept.words]
    everyday = general_captions(general, seed=seed, without=words)
    # Guidance compares every prediction with that of the empty prompt.
    groups = [CaptionGroup("everyday", tuple(everyday), 1.0), CaptionGroup("empty", ("",), 1.0)]
    if known is not None:
        groups.append(CaptionGroup("in domain", _in_domain(known, words, seed), 1.0))
    if protect:
        neighbours = captions_of(protect, each=PROTECTED_EACH, seed=seed)
        groups.append(CaptionGroup("protected", tuple(neighbours), 1.0))
    return tuple(groups)


def _in_domain(known: ModelConcepts, erased: Sequence[str], seed: int) -> tuple[str, ...]:
    """Every name the model knows a few times, and a sample of its other phrases once each."""
    names = [concept.name for concept in known.concepts if not mentions(concept.name, erased)]
    others = [
        phrase
        for concept in known.concepts
        for phrase in concept.phrases[1:]
        if not mentions(phrase, erased)
    ]
    draw = random.Random(seed)  # noqa: S311  (captions are no secret)
    sample = draw.sample(others, min(OTHER_PHRASES, len(others)))
    return (
        *captions_of(names, each=NAMES_EACH, seed=seed),
        *captions_of(sample, each=1, seed=seed),
    )


def kept_moment(
    encoder: PromptEncoder,
    groups: Sequence[CaptionGroup],
    *,
    cache: Path | None,
    advance: Callable[[int], None],
) -> Tensor:
    """K, (d, d) float64: the weighted mean over groups of the mean of e e^T over all tokens.

    All 77 positions count, padding included: cross-attention reads them all.

    Args:
        cache: a folder for moments of groups, or None.
        advance: told the number of captions that were encoded since it was last called.
    """
    encoder_digest = encoder.digest()
    total = sum(group.weight for group in groups)
    moments = []
    for group in groups:
        moment = _moment_of(encoder, encoder_digest, group.captions, cache=cache, advance=advance)
        moments.append(moment * (group.weight / total))
    return torch.stack(moments).sum(dim=0)


def _moment_of(
    encoder: PromptEncoder,
    encoder_digest: str,
    captions: Sequence[str],
    *,
    cache: Path | None,
    advance: Callable[[int], None],
) -> Tensor:
    document = json.dumps([encoder_digest, *captions]).encode()
    path = cache / f"{hashlib.sha256(document).hexdigest()}.safetensors" if cache else None
    if path is not None and (known := _read(path)) is not None:
        advance(len(captions))
        return known
    moment = torch.zeros(encoder.width, encoder.width, dtype=torch.float64)
    for batch in encoder.batches(captions, size=BATCH):
        tokens = batch.embeddings.flatten(0, 1).double().cpu()
        moment += tokens.T @ tokens
        advance(len(batch.embeddings))
    moment /= len(captions) * encoder.length
    if path is not None:
        write_atomically(path, save({"moment": moment}))
    return moment


def _read(path: Path) -> Tensor | None:
    """A cached moment; a file that cannot be read is no reason to fail, it is made again."""
    try:
        return load_file(str(path))["moment"]
    except (OSError, SafetensorError, KeyError):
        return None
