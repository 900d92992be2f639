"""What models to merge were solved from: read instead of their prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConceptInvalid, ModelUnsupported
from core.manifests import Manifest
from core.merging import leaves_something, taken_over
from core.specs import Concept, ErasureSpec, TextualOptions
from diffusion.erasure import FILENAME as ERASURE
from diffusion.erasure import Erasure
from trainer.concepts import words_move
from trainer.preservation import NEIGHBOUR, Kept
from trainer.trce.archive import FILENAME as STATISTICS
from trainer.trce.archive import load_statistics, may_hold_words
from trainer.trce.statistics import Statistics


@dataclass(frozen=True)
class Earlier:
    """What the models to merge were solved from."""

    concepts: frozenset[str]
    """Names; one whose words all stand under another has no statistics of its own."""
    statistics: Mapping[str, Statistics]
    kept: Kept

    def suffices(self, concepts: Sequence[Concept], options: TextualOptions) -> bool:
        """Nothing is to be read: no concept and no neighbour is new."""
        groups = {group.name for group in self.kept.groups}
        return {concept.name for concept in concepts} <= self.concepts and all(
            f"{NEIGHBOUR}{neighbour.name}" in groups for neighbour in options.protect
        )


def merged_manifests(spec: ErasureSpec, folders: Sequence[Path]) -> list[Manifest]:
    """Raises ConceptInvalid, UntrustedModel."""
    try:
        manifests = [Manifest.read(folder) for folder in folders]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConceptInvalid(f"merge: {error.filename} is not there") from error
    if [manifest.id for manifest in manifests] != list(spec.merge):
        raise ConceptInvalid(
            f"merge: the spec names {', '.join(spec.merge) or 'no models'}, and the folders given "
            f"hold {', '.join(manifest.id for manifest in manifests) or 'none'}"
        )
    return manifests


def read_earlier(
    spec: ErasureSpec, folders: Sequence[Path], merged: Sequence[Manifest], base: Manifest
) -> Earlier:
    """Raises ConceptInvalid, UntrustedModel, ModelUnsupported."""
    statistics: dict[str, Statistics] = {}
    kept: Kept | None = None
    concepts, _ = taken_over(spec, merged)
    for folder, manifest in zip(folders, merged, strict=True):
        manifest.check_files(folder)
        assert manifest.edit is not None  # `completed` refuses others
        if manifest.edit.base_digest != base.content_digest:
            raise ConceptInvalid(
                f"merge: {manifest.id} was made from another {base.id} than the one here"
            )
        changed = len(Erasure.load(folder / ERASURE).tensors)
        if changed and spec.steering is None and leaves_something(spec, merged):
            raise ModelUnsupported(
                f"merge: stage 2 changed {changed} tensors of {manifest.id}, trained for exactly "
                "its concepts; give `steering` to train anew for the concepts of all"
            )
        of_model, kept_there = load_statistics(folder / STATISTICS)
        if not may_hold_words(folder / STATISTICS):
            _check_no_words(
                manifest, [concepts[name] for name in of_model if name in concepts], spec
            )
        statistics |= {name: one for name, one in of_model.items() if name in concepts}
        kept = kept_there if kept is None else kept | kept_there
    assert kept is not None
    return Earlier(frozenset(concepts), statistics, kept)


def _check_no_words(manifest: Manifest, concepts: Sequence[Concept], spec: ErasureSpec) -> None:
    """Raises ConceptInvalid: of some of the concepts words are moved, and here they were not."""
    if words := [one.name for one in concepts if words_move(one, spec.textual)]:
        raise ConceptInvalid(
            f"merge: {manifest.id} was made before words were moved (textual.moved_words), and "
            f"its statistics of {', '.join(words)} hold none; add that to `remove`, and describe "
            "it once more in `concepts`"
        )
