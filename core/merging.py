"""A merge of erased models, as far as their manifests tell: no weight is read.

    concepts of the new model  =  concepts of the merged ones  -  `remove`  +  `concepts`

Their statistics add up exactly as long as no phrase counts twice. So a phrase may stand under
one concept only, except that two models may hold the very same concept.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

from core import presets
from core.consistency import check_captions, check_consistent
from core.edits import Edit
from core.errors import ConceptInvalid
from core.manifests import Manifest
from core.phrases import without_article
from core.specs import MAX_SYNONYMS, Concept, ErasureSpec, Neighbour, TextualOptions

FREE = ("preserve", "ridge", "strength")
"""Options that a merge may choose anew: they enter only when the map is solved for."""
FIXED = ("eot_tokens", "moved_words", "captions")
"""Options that decided which embeddings were summed up."""


def concepts_to_erase(spec: ErasureSpec, merged: Sequence[Manifest] = ()) -> tuple[Concept, ...]:
    """Everything that the new model erases: taken over from `merged` first, then new.

    Raises:
        ConceptInvalid: no such preset or concept, a contradiction, a phrase counted twice, or
            captions of which none is left to preserve.
    """
    new = _new_concepts(spec)
    kept, dropped = taken_over(spec, merged)
    concepts = (*kept.values(), *new)
    check_consistent(concepts, [neighbour.name for neighbour in spec.textual.protect])
    check_captions(spec.textual.captions, concepts)
    if merged:
        _check_nothing_counts_twice(list(kept.values()), dropped, new, len(merged))
    return concepts


def _new_concepts(spec: ErasureSpec) -> tuple[Concept, ...]:
    """Those of the presets, then the spec's own; what two of them share is there once.

    Raises:
        ConceptInvalid
    """
    found: dict[str, Concept] = {}
    listed = [concept for name in spec.presets for concept in presets.load(name)]
    for concept in (*listed, *spec.concepts):
        if found.setdefault(concept.name.casefold(), concept) != concept:
            raise ConceptInvalid(
                f"{concept.name!r} is described differently in the presets and concepts to erase; "
                "describe it once, or under another name"
            )
    return tuple(found.values())


def taken_over(
    spec: ErasureSpec, merged: Sequence[Manifest]
) -> tuple[dict[str, Concept], list[Concept]]:
    """The concepts of the merged models by name, without those to `remove`; and the latter.

    Raises:
        ConceptInvalid
    """
    kept: dict[str, Concept] = {}
    dropped: dict[str, Concept] = {}
    remove = {name.casefold() for name in spec.remove}
    for manifest in merged:
        for concept in _edit(manifest).concepts:
            if concept.name.casefold() in remove:
                dropped[concept.name.casefold()] = concept
            elif kept.setdefault(concept.name, concept) != concept:
                raise ConceptInvalid(
                    f"{concept.name!r} is described differently in the models to merge; add it to "
                    "`remove` and describe it once more in `concepts`"
                )
    if unknown := sorted(remove - set(dropped)):
        raise ConceptInvalid(
            f"remove: no concept {', '.join(map(repr, unknown))} is erased in "
            f"{' or '.join(spec.merge)}; there are: {', '.join(kept) or 'none'}"
        )
    return kept, list(dropped.values())


def completed(spec: ErasureSpec, merged: Sequence[Manifest]) -> ErasureSpec:
    """The spec with every option that it leaves open filled in from the merged models.

    Raises:
        ConceptInvalid: the models are of different bases, their options differ, or they protect
            too much together.
    """
    for manifest in merged:
        _check_mergeable(manifest, spec)
    edits = [_edit(manifest) for manifest in merged]
    _check_steering(spec, merged)
    if len({edit.base_digest for edit in edits}) > 1:
        raise ConceptInvalid("merge: the models were made from different states of their base")
    given = spec.textual.model_fields_set if "textual" in spec.model_fields_set else set()
    options = {
        name: getattr(spec.textual, name)
        if name in given
        else _agreed(name, [getattr(edit.textual, name) for edit in edits])
        for name in (*FREE, *FIXED)
    }
    for name in FIXED:
        if any(getattr(edit.textual, name) != options[name] for edit in edits):
            raise ConceptInvalid(
                f"textual.{name}: the models to merge were made with another value, on which "
                "their statistics depend; leave it out, or erase anew"
            )
    seed = _agreed("seed", [edit.seed for edit in edits])
    if "seed" in spec.model_fields_set and spec.seed != seed:
        raise ConceptInvalid(f"seed: the models to merge were made with {seed}; leave it out")
    protect = _neighbours([*(edit.textual for edit in edits), spec.textual])
    if len(protect) > MAX_SYNONYMS:
        raise ConceptInvalid(
            f"textual.protect: the models to merge and the spec name {len(protect)} neighbours "
            f"together, and {MAX_SYNONYMS} can be protected; merge fewer, or erase anew"
        )
    # Of the merged models they were found already; of what is new they are still to be, and where
    # the models differ, as many as any of them found.
    most = max(edit.textual.neighbours for edit in edits)
    count = spec.textual.neighbours if "neighbours" in given else most
    own = {"protect": protect, "neighbours": count}
    textual = TextualOptions.model_validate(options | own)
    return spec.model_copy(update={"textual": textual, "seed": seed})


def _check_mergeable(manifest: Manifest, spec: ErasureSpec) -> None:
    edit = manifest.edit
    if edit is None:
        raise ConceptInvalid(f"merge: {manifest.id} is a base model; name models erased from it")
    if edit.base_model != spec.base_model:
        raise ConceptInvalid(
            f"merge: {manifest.id} was erased from {edit.base_model}, not from {spec.base_model}"
        )
    if edit.method != spec.method:
        raise ConceptInvalid(
            f"merge: {manifest.id} was made by {edit.method}, which keeps no statistics; only "
            f"models made by {spec.method} can be merged"
        )


def _check_steering(spec: ErasureSpec, merged: Sequence[Manifest]) -> None:
    """Where nothing is left to erase, the result is the base, and no weight is trained anew."""
    steered = [one.id for one in merged if _edit(one).steering is not None]
    if steered and spec.steering is None and leaves_something(spec, merged):
        raise ConceptInvalid(
            f"merge: stage 2 trained the weights of {', '.join(steered)} for exactly their "
            "concepts; give `steering` (--steering) to train them anew for the concepts of all, "
            "or erase without it"
        )


def leaves_something(spec: ErasureSpec, merged: Sequence[Manifest]) -> bool:
    """Will the new model erase anything?

    Raises:
        ConceptInvalid
    """
    return bool(spec.asked_for or taken_over(spec, merged)[0])


def _agreed(name: str, values: Iterable[object]) -> object:
    first, *others = values
    if any(other != first for other in others):
        raise ConceptInvalid(
            f"{name}: the models to merge were made with different values; give one"
        )
    return first


def _neighbours(options: Iterable[TextualOptions]) -> tuple[Neighbour, ...]:
    """Everybody's; who is protected twice gets the larger weight."""
    found: dict[str, Neighbour] = {}
    for one in options:
        for neighbour in one.protect:
            key = neighbour.name.casefold()
            if key not in found or found[key].weight < neighbour.weight:
                found[key] = neighbour
    return tuple(found.values())


def _check_nothing_counts_twice(
    kept: Collection[Concept], dropped: Collection[Concept], new: Collection[Concept], models: int
) -> None:
    """Among the concepts of one model, a phrase was counted once when it was made."""
    for one, other in [(one, other) for one in kept for other in new]:
        if shared := _phrases_of(one) & _phrases_of(other):
            raise ConceptInvalid(
                f"{min(shared)!r} is erased already, under {one.name!r}; name {one.name!r} in "
                f"`remove` to take the new {other.name!r} instead, or leave that out"
            )
    pairs = [(one, other) for one in kept for other in dropped]
    if models > 1:
        pairs += combinations(kept, 2)
    for one, other in pairs:
        if shared := _phrases_of(one) & _phrases_of(other):
            raise ConceptInvalid(
                f"{min(shared)!r} stands under both {one.name!r} and {other.name!r}, so their "
                "statistics cannot be told apart; erase anew with it under one of them"
            )


def _phrases_of(concept: Concept) -> set[str]:
    return {without_article(word) for word in concept.words}


def _edit(manifest: Manifest) -> Edit:
    assert manifest.edit is not None, manifest.id
    return manifest.edit
