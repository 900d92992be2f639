"""The judge: an independent classifier that says what a picture shows."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel

from core.errors import ModelUnsupported, UntrustedModel
from core.manifests import Manifest
from core.model_files import ModelFiles
from diffusion.assembling import assemble_auto, read_processor
from diffusion.model_concepts import FILENAME, ModelConcepts

FOLDER = "classifier"
WEIGHTS = f"{FOLDER}/model.safetensors"
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
    def load(
        cls,
        model_folder: Path,
        manifest: Manifest | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The judge that comes with a model; each file as its manifest says, if there is one.

        Raises:
            ModelUnsupported: the model has no judge, or one that knows other concepts.
            UntrustedModel: a file is not as the manifest says, or weights are not safetensors.
        """
        files, name = ModelFiles(model_folder, manifest), model_folder.name
        concepts = ModelConcepts.among(files)
        if concepts is None or not files.below(FOLDER):
            raise ModelUnsupported(f"{name} comes without a classifier to judge by")
        if WEIGHTS not in files:
            raise UntrustedModel(f"{name}: its classifier has no model.safetensors")
        try:
            classifier = assemble_auto(AutoModelForImageClassification, files, FOLDER)
            processor = read_processor(files, FOLDER)
        except ModelUnsupported as error:
            raise ModelUnsupported(f"{name}: its classifier is broken: {error}") from error
        names = {concept.name for concept in concepts.concepts}
        if set(classifier.config.id2label.values()) != names:
            raise ModelUnsupported(
                f"{name}: its classifier and its concepts.json name different things"
            )
        digests = "".join(files.digest(one) for one in (WEIGHTS, FILENAME))
        return cls(
            classifier.to(device),
            processor,
            concepts,
            version=hashlib.sha256(digests.encode()).hexdigest()[:16],
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
