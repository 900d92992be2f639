"""What is asked of the denoiser."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.prompts import EncodedPrompt


@dataclass(frozen=True)
class DenoiseRequest:
    """One picture to draw."""

    key: Hashable
    prompt: Tensor
    """(77, d), already mapped by the erasure that is to act."""
    negative: Tensor | None
    """(77, d), mapped too. May be None when `guidance_scale` is at most 1."""
    seed: int
    num_inference_steps: int
    guidance_scale: float
    """At most 1 means unguided, which costs one UNet row instead of two."""
    width_px: int
    height_px: int
    pooled: Tensor | None = None
    """(p,), the prompt in one vector, mapped too; SDXL alone reads it."""
    negative_pooled: Tensor | None = None
    scheduler: str | None = None
    """One of `core.schedulers.SCHEDULERS`; None is the model's own."""
    watched: bool = False
    """`Denoiser.previews` is to show it on its way."""

    alone: bool = False
    """It has UNet passes of its own, so that no limit of rows, which comes from timing and from
    what memory is free, decides its last bits."""

    @classmethod
    def of(
        cls, key: Hashable, prompt: EncodedPrompt, negative: EncodedPrompt | None, **rest: Any
    ) -> "DenoiseRequest":
        """From prompts as the erased model reads them (`diffusion.erasure.Erasure.map_prompt`).

        Args:
            rest: the other fields.
        """
        return cls(
            key=key,
            prompt=prompt.embedding,
            negative=negative.embedding if negative else None,
            pooled=prompt.pooled,
            negative_pooled=negative.pooled if negative else None,
            **rest,
        )

    @property
    def size_condition(self) -> Tensor:
        """What SDXL is told of the size: (height, width) before and after a crop of nothing."""
        size = [self.height_px, self.width_px]
        return torch.tensor([*size, 0, 0, *size], dtype=torch.float32)

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1
