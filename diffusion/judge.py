"""The judge: an independent classifier that says what a picture shows."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
)

from core.errors import ModelUnsupported, UntrustedModel
from core.files import sha256
from diffusion.model_concepts import FILENAME, ModelConcepts

FOLDER = "classifier"
BATCH = 64


class Judge:
    """Names what it sees, in the words of the model's `concepts.json`."""

    def __init__(
        self,
        classifier: PreTrainedModel,
        processor: BaseImageProcessor,
        concepts: ModelConcepts,
        *,
        version: str,
    ) -> None:
        self._classifier = classifier
        self._processor = processor
        self.concepts = concepts
        self.version = version
        """Digest of its weights and of what belongs to which group."""

    @classmethod
    def load(cls, model_folder: Path, *, device: torch.device | str = "cpu") -> Self:
        """The judge that comes with a model.

        Raises:
            ModelUnsupported: the model has no judge, or one that knows other concepts.
            UntrustedModel: its weights are not safetensors.
        """
        folder = model_folder / FOLDER
        concepts = ModelConcepts.of(model_folder)
        if concepts is None or not folder.is_dir():
            raise ModelUnsupported(f"{model_folder.name} comes without a classifier to judge by")
        if not (folder / "model.safetensors").is_file():
            raise UntrustedModel(f"{model_folder.name}: its classifier has no model.safetensors")
        try:
            classifier = AutoModelForImageClassification.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            processor = AutoImageProcessor.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ModelUnsupported(
                f"{model_folder.name}: its classifier is broken: {error}"
            ) from error
        names = {concept.name for concept in concepts.concepts}
        if set(classifier.config.id2label.values()) != names:
            raise ModelUnsupported(
                f"{model_folder.name}: its classifier and its concepts.json name different things"
            )
        files = (folder / "model.safetensors", model_folder / FILENAME)
        return cls(
            classifier.to(device).eval().requires_grad_(False),
            processor,
            concepts,
            version=hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16],
        )

    @property
    def labels(self) -> list[str]:
        """The concepts, in the order of the columns of `probabilities`."""
        names = self._classifier.config.id2label
        return [names[number] for number in range(len(names))]

    def probabilities(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(n, concepts) float32 on the CPU: how likely each picture shows each concept."""
        found = [torch.empty(0, len(self.labels))]
        for start in range(0, len(pictures), BATCH):
            batch = [picture.convert("RGB") for picture in pictures[start : start + BATCH]]
            pixels = self._processor(batch, return_tensors="pt").pixel_values
            with torch.inference_mode():
                logits = self._classifier(pixels.to(self._classifier.device)).logits
            found.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(found)

    def names(self, pictures: Sequence[Image.Image]) -> list[str]:
        """The concept that each picture shows most likely."""
        return [self.labels[number] for number in self.probabilities(pictures).argmax(1).tolist()]

    def shows(self, pictures: Sequence[Image.Image], group: str) -> list[bool]:
        """Whether each picture shows something of a group of `concepts.json`, say "weapon"."""
        members = self.concepts.members(group)
        return [name in members for name in self.names(pictures)]
