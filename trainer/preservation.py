"""What must keep its meaning: captions, and K, the second moment of their token embeddings.

The captions do not depend on what is erased. So the sum over all of them is computed once per
text encoder, lies on disk under the digest of both, and serves every erasure and every method.
Captions that speak of an erased concept are taken out of the sum again; their embeddings are
kept, so that an erased model can be merged with others, or a concept taken out of it, exactly.
"""

import hashlib
import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from core.errors import ConceptInvalid, SingularEdit
from core.files import write_atomically
from core.phrases import mentions
from core.specs import Neighbour
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import EncodedPrompts, PromptEncoder
from trainer.captions import captions_of, general_captions

GENERAL_CAPTIONS = 1000
NAMES_EACH = 3
OTHER_PHRASES = 1000
NEIGHBOURS_EACH = 15
BATCH = 32
NEIGHBOUR = "neighbour: "
TEXT, POOLED = "text", "pooled"


@dataclass(frozen=True)
class CaptionGroup:
    """Captions whose moments are averaged; the group then weighs `weight` among the others."""

    name: str
    captions: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class KeptGroup:
    """A group of captions as the text encoder reads it."""

    name: str
    weight: float
    digest: str
    """Names encoder and captions."""
    count: int
    """How many captions there are, those withheld included."""
    total: Tensor
    """(d, d) float64: the sum over all captions of the mean of e e^T over their tokens."""
    withheld: Mapping[str, Tensor]
    """Caption -> (length, d): those that speak of a concept erased so far."""

    @property
    def is_neighbour(self) -> bool:
        return self.name.startswith(NEIGHBOUR)

    def moment(self, erased: Sequence[str]) -> Tensor | None:
        """(d, d), the mean over the captions that mention nothing of `erased`; None: all do."""
        out = [caption for caption in sorted(self.withheld) if self._withholds(caption, erased)]
        if len(out) == self.count:
            return None
        total = self.total.clone()
        for caption in out:
            total -= _token_moment(self.withheld[caption][None])
        return total / (self.count - len(out))

    def _withholds(self, caption: str, erased: Sequence[str]) -> bool:
        return not self.is_neighbour and mentions(caption, erased) is not None


@dataclass(frozen=True)
class Kept:
    """Everything that is preserved, whatever is erased."""

    encoder: str
    """Digest of the text encoder."""
    groups: tuple[KeptGroup, ...]
    pooled: "Kept | None" = None
    """The same of pooled embeddings; SDXL alone has them."""

    def moment(self, erased: Sequence[str]) -> Tensor:
        """K, (d, d) float64, for an erasure of these words: the weighted mean over groups."""
        neighbours = sum(group.is_neighbour for group in self.groups)
        parts = []
        for group in sorted(self.groups, key=lambda group: group.name):
            if (moment := group.moment(erased)) is not None:
                weight = group.weight / neighbours if group.is_neighbour else group.weight
                parts.append((weight, moment))
        whole = sum(weight for weight, _ in parts)
        return torch.stack([moment * (weight / whole) for weight, moment in parts]).sum(dim=0)

    def protecting(self, protect: Sequence[Neighbour]) -> "Kept":
        """The same, with these neighbours of those it knows, and with these weights."""
        weights = {f"{NEIGHBOUR}{one.name}": one.weight for one in protect}
        groups = tuple(
            replace(group, weight=weights.get(group.name, group.weight))
            for group in self.groups
            if not group.is_neighbour or group.name in weights
        )
        return Kept(self.encoder, groups, self.pooled.protecting(protect) if self.pooled else None)

    def __or__(self, other: "Kept") -> "Kept":
        """What both preserve together.

        Raises:
            ConceptInvalid: they were read by different text encoders or from different captions.
        """
        if self.encoder != other.encoder:
            raise ConceptInvalid("the models to merge were made with different text encoders")
        mine = {group.name: group for group in self.groups}
        for group in other.groups:
            same = mine.get(group.name)
            if same is None and not group.is_neighbour:
                raise ConceptInvalid(f"only one of the models to merge preserves {group.name}")
            mine[group.name] = group if same is None else _united(same, group)
        pooled = self.pooled | other.pooled if self.pooled and other.pooled else None
        return Kept(self.encoder, tuple(mine.values()), pooled)


def caption_groups(
    *,
    known: ModelConcepts | None,
    protect: Sequence[Neighbour],
    seed: int,
    own: Sequence[str] = (),
    general: int = GENERAL_CAPTIONS,
) -> tuple[CaptionGroup, ...]:
    """What to preserve: what the model draws, the empty prompt, neighbours.

    What it draws are its own concepts, where it says what they are, or everyday things. The
    shipped everyday captions would be foreign to a model of few concepts: preserving them too
    costs it some of its own, see docs/trce.md.

    The groups weigh the same, whatever their sizes; the neighbours together weigh the mean of
    their weights. So one protected among five counts as much as two hundred everyday captions.

    Args:
        own: captions in place of the everyday ones.
    """
    groups = []
    if own or known is None:
        everyday = own or general_captions(general, seed=seed)
        groups.append(CaptionGroup("everyday", tuple(dict.fromkeys(everyday)), 1.0))
    # Guidance compares every prediction with that of the empty prompt.
    groups.append(CaptionGroup("empty", ("",), 1.0))
    if known is not None:
        groups.append(CaptionGroup("in domain", _in_domain(known, seed), 1.0))
    return (*groups, *neighbour_groups(protect, seed=seed))


def _in_domain(known: ModelConcepts, seed: int) -> tuple[str, ...]:
    """Every name the model knows a few times, and a sample of its other phrases once each."""
    names = [concept.name for concept in known.concepts]
    others = [phrase for concept in known.concepts for phrase in concept.phrases[1:]]
    draw = random.Random(seed)  # noqa: S311  (captions are no secret)
    sample = draw.sample(others, min(OTHER_PHRASES, len(others)))
    captions = (
        *captions_of(names, each=NAMES_EACH, seed=seed),
        *captions_of(sample, each=1, seed=seed),
    )
    return tuple(dict.fromkeys(captions))


def neighbour_groups(protect: Iterable[Neighbour], *, seed: int) -> list[CaptionGroup]:
    return [
        CaptionGroup(
            f"{NEIGHBOUR}{neighbour.name}",
            tuple(captions_of([neighbour.name], each=NEIGHBOURS_EACH, seed=seed)),
            neighbour.weight,
        )
        for neighbour in protect
    ]


def read_groups(
    encoder: PromptEncoder,
    groups: Sequence[CaptionGroup],
    *,
    erased: Sequence[str],
    cache: Path | None,
    advance: Callable[[int], None],
    known: Kept | None = None,
) -> Kept:
    """Encode what is to be preserved when these words are erased.

    All 77 positions count, padding included: cross-attention reads them all.

    Args:
        cache: a folder for the sums over groups, or None.
        advance: told the number of captions that were encoded since it was last called.
        known: groups and captions that were encoded before.

    Raises:
        ConceptInvalid: `known` was read by another text encoder.
    """
    encoder_digest = encoder.digest()
    if known is not None and known.encoder != encoder_digest:
        raise ConceptInvalid(
            "the text encoder of the base is not the one that the models to merge were made with"
        )
    before = _by_digest(known)
    spaces: dict[str, list[KeptGroup]] = {}
    for group in groups:
        document = json.dumps([encoder_digest, *group.captions]).encode()
        digest = hashlib.sha256(document).hexdigest()
        if digest in before:
            totals = {space: kept.total for space, kept in before[digest].items()}
            withheld = {space: kept.withheld for space, kept in before[digest].items()}
            advance(len(group.captions))
        else:
            totals = _totals(encoder, group.captions, digest, cache=cache, advance=advance)
            withheld = {}
        fresh = _withheld(encoder, group, erased, withheld.get(TEXT, {}))
        for space, total in totals.items():
            spaces.setdefault(space, []).append(
                KeptGroup(
                    name=group.name,
                    weight=group.weight,
                    digest=digest,
                    count=len(group.captions),
                    total=total,
                    withheld={**withheld.get(space, {}), **fresh.get(space, {})},
                )
            )
    pooled = Kept(encoder_digest, tuple(spaces[POOLED])) if POOLED in spaces else None
    return Kept(encoder_digest, tuple(spaces[TEXT]), pooled)


def _by_digest(kept: Kept | None) -> dict[str, dict[str, KeptGroup]]:
    if kept is None:
        return {}
    found = {group.digest: {TEXT: group} for group in kept.groups}
    for group in kept.pooled.groups if kept.pooled else ():
        found[group.digest][POOLED] = group
    return found


def _withheld(
    encoder: PromptEncoder, group: CaptionGroup, erased: Sequence[str], known: Collection[str]
) -> dict[str, dict[str, Tensor]]:
    """By space, the embeddings of the captions that speak of the erased and are not `known`."""
    if group.name.startswith(NEIGHBOUR):
        return {}
    captions = [
        caption
        for caption in group.captions
        if caption not in known and mentions(caption, erased) is not None
    ]
    withheld: dict[str, dict[str, Tensor]] = {}
    for start in range(0, len(captions), BATCH):
        batch = captions[start : start + BATCH]
        for space, embeddings in _spaces(encoder.encode_all(batch)).items():
            withheld.setdefault(space, {}).update(zip(batch, embeddings.cpu(), strict=True))
    return withheld


def _spaces(encoded: EncodedPrompts) -> dict[str, Tensor]:
    """(n, tokens, d) and, where there are pooled embeddings, (n, 1, p)."""
    pooled = {} if encoded.pooled is None else {POOLED: encoded.pooled[:, None]}
    return {TEXT: encoded.embeddings, **pooled}


def _united(one: KeptGroup, other: KeptGroup) -> KeptGroup:
    """Raises ConceptInvalid."""
    if one.digest != other.digest:
        raise ConceptInvalid(
            f"the models to merge preserve different captions ({one.name}); erase them with the "
            "same seed and captions"
        )
    return replace(
        one,
        weight=max(one.weight, other.weight),
        withheld={**one.withheld, **other.withheld},
    )


def _token_moment(embeddings: Tensor) -> Tensor:
    """(n, length, d) -> (d, d) float64: the sum over captions of the mean of e e^T."""
    tokens = embeddings.flatten(0, 1).cpu().double()
    return tokens.T @ tokens / embeddings.shape[1]


def _totals(
    encoder: PromptEncoder,
    captions: Sequence[str],
    digest: str,
    *,
    cache: Path | None,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:
    path = _cached_at(cache, digest, encoder) if cache else None
    if path is not None and (known := _read(path)) is not None:
        advance(len(captions))
        return known
    totals: dict[str, Tensor] = {}
    for batch in encoder.batches(captions, size=BATCH):
        for space, embeddings in _spaces(batch).items():
            totals[space] = totals.get(space, 0) + _token_moment(embeddings)
        advance(len(batch.embeddings))
    if not all(bool(total.isfinite().all()) for total in totals.values()):
        raise SingularEdit("the text encoder computes numbers that are not finite")
    if path is not None:
        write_atomically(path, save(totals))
    return totals


def _cached_at(cache: Path, digest: str, encoder: PromptEncoder) -> Path:
    name = hashlib.sha256(f"{digest} {encoder.spelling()}".encode()).hexdigest()
    return cache / f"{name}.safetensors"


def _read(path: Path) -> dict[str, Tensor] | None:
    """Cached sums; a file that cannot be read is no reason to fail, it is made again."""
    try:
        return load_file(str(path))
    except (OSError, SafetensorError):
        return None
