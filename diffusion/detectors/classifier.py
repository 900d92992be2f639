"""The classifier that comes with a model; a group scores what its members score together."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from core.detection import DetectorSpec
from core.errors import DetectorNotUsable, ModelUnsupported
from core.manifests import Manifest
from diffusion.detectors.protocol import DetectorIdentity
from diffusion.judge import Judge

THRESHOLD = 0.5


class ClassifierDetector:
    def __init__(self, judge: Judge, identity: DetectorIdentity) -> None:
        self.judge = judge
        self.identity = identity

    @classmethod
    def load(
        cls,
        spec: DetectorSpec,
        model_folder: Path,
        manifest: Manifest | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> "ClassifierDetector":
        """Raises DetectorNotUsable, UntrustedModel."""
        if not spec.classes:
            raise DetectorNotUsable(
                "detector classifier: say which concepts or groups count, as in classes: [weapon]"
            )
        try:
            judge = Judge.load(model_folder, manifest, device=device)
        except ModelUnsupported as error:
            raise DetectorNotUsable(f"detector classifier: {error}") from error
        for wanted in spec.classes:
            if not judge.concepts.knows(wanted):
                raise DetectorNotUsable(
                    f"detector classifier: {model_folder.name} knows no concept or group "
                    f"{wanted!r}; its groups are {', '.join(judge.concepts.groups)}"
                )
        identity = DetectorIdentity(
            name="classifier",
            version=judge.version,
            classes=spec.classes,
            threshold=THRESHOLD if spec.threshold is None else spec.threshold,
        )
        return cls(judge, identity)

    def scores(self, pictures: Sequence[Image.Image]) -> list[dict[str, float]]:
        probabilities = self.judge.probabilities(pictures)
        found: list[dict[str, float]] = [{} for _ in pictures]
        for name in self.identity.classes:
            columns = [
                self.judge.labels.index(concept.name)
                for concept in self.judge.concepts.concepts
                if name in (concept.name, concept.group, *concept.groups)
            ]
            # Rounding may carry a sum of probabilities past 1.
            together = probabilities[:, columns].sum(dim=1).clamp(0, 1).tolist()
            for scores, score in zip(found, together, strict=True):
                scores[name] = score
        return found
