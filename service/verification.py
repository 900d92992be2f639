"""Where a picture comes from: what its signed record says, held against its pixels.

What can be known, and what not: a valid record over other pixels says that the picture was
changed after it was drawn, or that the record was moved here from another one; which of the two,
nobody can tell. A picture without a record was not drawn here, or has lost it on the way: many
sites remove everything beside the pixels. So `unknown` is no proof of anything.
"""

from dataclasses import dataclass
from typing import Literal

from core.errors import ModelNotFound, UntrustedModel
from core.manifests import Manifest
from core.picture_files import PictureFile, read
from core.provenance import Provenance, text_digest
from core.registry import ModelRegistry
from core.signing import Verifier

Verdict = Literal["intact", "altered", "unknown"]


@dataclass(frozen=True)
class Verified:
    verdict: Verdict
    explanation: str
    provenance: Provenance | None = None
    """The signed record, unless the verdict is `unknown`."""
    model: Manifest | None = None
    """The very model that drew it, if it is still installed."""
    changed: tuple[Literal["pixels", "parameters"], ...] = ()


class Verification:
    def __init__(self, registry: ModelRegistry, verifier: Verifier) -> None:
        """
        Args:
            verifier: knows the keys for pictures.
        """
        self._registry = registry
        self._verifier = verifier

    def verify(self, data: bytes) -> Verified:
        """Raises PictureUnreadable."""
        file = read(data)
        if file.record is None:
            return Verified(
                "unknown",
                "it carries no record of its origin: it was not drawn here, or lost its record",
            )
        provenance = Provenance.decoded(file.record)
        if provenance is None or not provenance.is_signed_by_one_of(self._verifier):
            return Verified(
                "unknown",
                "its record is not signed by a key that is trusted here: it comes from another "
                "installation, or is forged",
            )
        model = self._model(provenance)
        if changed := _changed(file, provenance):
            return Verified(
                "altered",
                f"its record is ours, but not its {' and '.join(changed)}: it was changed after "
                "it was drawn, or the record was moved here from another picture",
                provenance,
                model,
                changed,
            )
        return Verified("intact", "drawn here, and not changed since", provenance, model)

    def _model(self, provenance: Provenance) -> Manifest | None:
        try:
            manifest = self._registry.get(provenance.model)
        except (ModelNotFound, UntrustedModel):
            return None
        return manifest if manifest.content_digest == provenance.model_digest else None


def _changed(
    file: PictureFile, provenance: Provenance
) -> tuple[Literal["pixels", "parameters"], ...]:
    changed: list[Literal["pixels", "parameters"]] = []
    if file.pixels != provenance.pixels:
        changed.append("pixels")
    # A text that is gone says nothing false; another one does.
    if file.parameters is not None and text_digest(file.parameters) != provenance.parameters:
        changed.append("parameters")
    return tuple(changed)
