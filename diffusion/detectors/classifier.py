"""The classifier that comes with a model: the probability of all classes of a group together."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from core.detection import DetectorSpec
from core.errors import DetectorUnavailable, ModelUnsupported
from core.files import sha256
from diffusion.detectors.protocol import DetectorIdentity
from diffusion.judge import FOLDER, Judge

THRESHOLD = 0.5


class ClassifierDetector:
    def __init__(self, judge: Judge, identity: DetectorIdentity) -> None:
        self.judge = judge
        self.identity = identity

    @classmethod
    def load(
        cls, spec: DetectorSpec, model_folder: Path, *, device: torch.device | str = "cpu"
    ) -> "ClassifierDetector":
        """Raises DetectorUnavailable, UntrustedModel."""
        if not spec.classes:
            raise DetectorUnavailable(
                "detector classifier: say which concepts or groups count, as in classes: [weapon]"
            )
        try:
            judge = Judge.load(model_folder, device=device)
            names = [
                concept.name
                for concept in judge.concepts.concepts
                if {concept.name, concept.group, *concept.groups} & set(spec.classes)
            ]
        except ModelUnsupported as error:
            raise DetectorUnavailable(f"detector classifier: {error}") from error
        for wanted in spec.classes:
            if not judge.concepts.knows(wanted):
                raise DetectorUnavailable(
                    f"detector classifier: {model_folder.name} knows no concept or group "
                    f"{wanted!r}; its groups are {', '.join(judge.concepts.groups)}"
                )
        threshold = THRESHOLD if spec.threshold is None else spec.threshold
        identity = DetectorIdentity(
            name="classifier",
            version=sha256(model_folder / FOLDER / "model.safetensors")[:16],
            classes=tuple(names),
            threshold=threshold,
        )
        return cls(judge, identity)

    def scores(self, pictures: Sequence[Image.Image]) -> list[float]:
        probabilities = self.judge.probabilities(pictures)
        columns = [self.judge.labels.index(name) for name in self.identity.classes]
        # Rounding may carry a sum of probabilities past 1.
        return probabilities[:, columns].sum(dim=1).clamp(0, 1).tolist()
