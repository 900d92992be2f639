"""CLIP zero-shot: is the picture nearer to a phrase that counts than to anything ordinary?"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from core.detection import DetectorSpec
from core.errors import DetectorNotUsable, ModelUnsupported
from core.manifests import Manifest
from diffusion.detectors.protocol import DetectorIdentity
from diffusion.likeness import Likeness
from diffusion.model_concepts import ModelConcepts

SENTENCE = "a picture of {}"
THRESHOLD = 0.5
# What a picture may show instead, when the model does not say what it draws.
ORDINARY = ("a person", "an animal", "a building", "a landscape", "food", "a vehicle", "a plant")


class ZeroShotDetector:
    """A phrase scores its share of a softmax over all phrases that count and all that do not."""

    def __init__(
        self, likeness: Likeness, identity: DetectorIdentity, ordinary: Sequence[str]
    ) -> None:
        self._likeness = likeness
        self.identity = identity
        phrases = [SENTENCE.format(phrase) for phrase in (*identity.classes, *ordinary)]
        self._phrases = likeness.texts(phrases)

    @classmethod
    def load(
        cls,
        spec: DetectorSpec,
        model_folder: Path,
        manifest: Manifest | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> "ZeroShotDetector":
        """Raises DetectorNotUsable, UntrustedModel."""
        if not spec.classes:
            raise DetectorNotUsable(
                "detector zero-shot: say which phrases count, as in classes: [a knife, a gun]"
            )
        try:
            likeness = Likeness.load(model_folder, manifest, device=device)
            known = ModelConcepts.of(model_folder, manifest)
        except ModelUnsupported as error:
            raise DetectorNotUsable(f"detector zero-shot: {error}") from error
        counted = {_bare(phrase) for phrase in spec.classes}
        names = [
            concept.noun
            for concept in (known.concepts if known else ())
            if not counted & {_bare(words) for words in (*concept.phrases, concept.group)}
        ]
        identity = DetectorIdentity(
            name="zero-shot",
            version=likeness.version,
            classes=spec.classes,
            threshold=THRESHOLD if spec.threshold is None else spec.threshold,
        )
        return cls(likeness, identity, names or ORDINARY)

    def scores(self, pictures: Sequence[Image.Image]) -> list[dict[str, float]]:
        cosines = self._likeness.pictures(pictures) @ self._phrases.T
        shares = (self._likeness.scale * cosines).softmax(dim=1)
        counted = shares[:, : len(self.identity.classes)].clamp(0, 1).tolist()
        return [dict(zip(self.identity.classes, row, strict=True)) for row in counted]


def _bare(phrase: str) -> str:
    return re.sub(r"^(an?|the) ", "", phrase.casefold())
