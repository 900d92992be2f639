"""Prompts as a UNet reads them, and the UNet's prediction for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffusion.erasure import Erasure
from diffusion.prompts import PromptEncoder


@dataclass(frozen=True)
class Texts:
    embeddings: Tensor
    """(n, 77, d)."""
    pooled: Tensor | None = None
    """(n, p); SDXL alone has them."""
    size_px: int = 0
    """The side of the picture, which SDXL is told, too."""

    @classmethod
    def read(cls, encoder: PromptEncoder, prompts: Sequence[str], *, size_px: int = 0) -> Self:
        encoded = [encoder.encode(prompt) for prompt in prompts]
        pooled = [one.pooled for one in encoded if one.pooled is not None]
        return cls(
            torch.stack([one.embedding for one in encoded]),
            torch.stack(pooled) if pooled else None,
            size_px,
        )

    def through(self, erasure: Erasure) -> "Texts":
        """As the erased model reads them."""
        pooled = None if self.pooled is None else erasure.map_pooled(self.pooled)
        return Texts(erasure.map_prompts(self.embeddings), pooled, self.size_px)

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, rows: Tensor | slice) -> "Texts":
        pooled = None if self.pooled is None else self.pooled[rows]
        return Texts(self.embeddings[rows], pooled, self.size_px)

    def __add__(self, other: "Texts") -> "Texts":
        both = [one.pooled for one in (self, other) if one.pooled is not None]
        return Texts(
            torch.cat([self.embeddings, other.embeddings]),
            torch.cat(both) if both else None,
            self.size_px,
        )

    def repeated(self, count: int) -> "Texts":
        """The first row, `count` times."""
        return self[torch.zeros(count, dtype=torch.long)]


def predict(
    unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, texts: Texts
) -> Tensor:
    """The UNet's output for each row, (n, 4, h, w) float32."""
    added = None
    if texts.pooled is not None:
        side = texts.size_px
        size = torch.tensor([[side, side, 0, 0, side, side]], device=latents.device)
        added = {"text_embeds": texts.pooled, "time_ids": size.to(latents).expand(len(texts), -1)}
    predicted: Tensor = unet(
        latents,
        timesteps,
        encoder_hidden_states=texts.embeddings,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]
    return predicted.float()
