"""One space for pictures and texts, where a cosine says how alike they are: CLIP, or our own."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from core.errors import ModelUnsupported, UntrustedModel
from core.manifests import Manifest
from core.model_files import ModelFiles
from diffusion.assembling import read_processor, read_transformers, read_words

IMAGE_ENCODER = "image_encoder"
"""A folder of the model, whose embeddings lie in the space of its text encoder's pooled state."""
CLIP = "clip"
"""Or one with a whole CLIP model, for models whose own text encoder has no partner."""
BATCH = 64
OWN_SCALE, CLIP_SCALE = 20.0, 100.0
"""What cosines are multiplied by before a softmax: as the encoders were trained."""


class Likeness:
    """Embeds pictures and texts; all embeddings are (n, d) float32, of length 1, on the CPU."""

    def __init__(
        self,
        *,
        text: Any,
        image: Any,
        tokenizer: CLIPTokenizer,
        processor: Any,
        version: str,
        scale: float,
    ) -> None:
        self._text = text
        self._image = image
        self._tokenizer = tokenizer
        self._processor = processor
        self.version = version
        self.scale = scale

    @classmethod
    def load(
        cls,
        model_folder: Path,
        manifest: Manifest | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> "Likeness":
        """What the model's folder holds: `clip/`, or `image_encoder/` beside its text encoder.

        Raises:
            ModelUnsupported: it holds neither, or a broken one.
            UntrustedModel: a file is not as the manifest says, or weights are not safetensors.
        """
        files, name = ModelFiles(model_folder, manifest), model_folder.name
        whole = bool(files.below(CLIP))
        image_part = CLIP if whole else IMAGE_ENCODER
        text_part, words = (CLIP, CLIP) if whole else ("text_encoder", "tokenizer")
        if not files.below(image_part):
            raise ModelUnsupported(
                f"{name} comes without an image encoder: put a CLIP model in "
                f"{CLIP}/, or an encoder that fits its text encoder in {IMAGE_ENCODER}/"
            )
        weights = sorted({f"{part}/model.safetensors" for part in (image_part, text_part)})
        for one in weights:
            if one not in files:
                raise UntrustedModel(f"{name}: {one.partition('/')[0]} has no model.safetensors")
        try:
            if whole:
                image = text = read_transformers(CLIPModel, files, CLIP)
            else:
                image = read_transformers(CLIPVisionModelWithProjection, files, IMAGE_ENCODER)
                text = read_transformers(CLIPTextModel, files, text_part)
            processor = read_processor(files, image_part)
            tokenizer = read_words(
                files, words, partial(CLIPTokenizer.from_pretrained, local_files_only=True)
            )
        except ModelUnsupported as error:
            raise ModelUnsupported(f"{name}: its image encoder is broken: {error}") from error
        digest = hashlib.sha256("".join(map(files.digest, weights)).encode()).hexdigest()
        return cls(
            text=text.to(device),
            image=image.to(device),
            tokenizer=tokenizer,
            processor=processor,
            version=digest[:16],
            scale=CLIP_SCALE if whole else OWN_SCALE,
        )

    @property
    def width(self) -> int:
        """d, the size of an embedding."""
        return int(self._image.config.projection_dim)

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        found = []
        for start in range(0, len(pictures), BATCH):
            batch = [picture.convert("RGB") for picture in pictures[start : start + BATCH]]
            pixels = self._processor(batch, return_tensors="pt").pixel_values
            with torch.inference_mode():
                found.append(self._embed_pixels(pixels.to(self._image.device)))
        return _together(found, self.width)

    def texts(self, texts: Sequence[str]) -> Tensor:
        found = []
        for start in range(0, len(texts), BATCH):
            ids = self._tokenizer(
                list(texts[start : start + BATCH]),
                padding="max_length",
                max_length=self._tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            with torch.inference_mode():
                found.append(self._embed_ids(ids.to(self._text.device)))
        return _together(found, self.width)

    def _embed_pixels(self, pixels: Tensor) -> Tensor:
        if isinstance(self._image, CLIPModel):
            pooled = self._image.vision_model(pixel_values=pixels).pooler_output
            return self._image.visual_projection(pooled)
        embeds: Tensor = self._image(pixels).image_embeds
        return embeds

    def _embed_ids(self, ids: Tensor) -> Tensor:
        if isinstance(self._text, CLIPModel):
            pooled = self._text.text_model(input_ids=ids).pooler_output
            return self._text.text_projection(pooled)
        state: Tensor = self._text(ids).pooler_output
        return state


def _together(found: list[Tensor], width: int) -> Tensor:
    embeddings = torch.cat(found) if found else torch.empty(0, width)
    return normalize(embeddings.float().cpu(), dim=-1)
