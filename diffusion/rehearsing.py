"""UNet passes of rows that nobody asked for: to count their memory, to time or to compile them."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusion.families import SIZE_NUMBERS
from diffusion.limits import Sides

TEXT_TOKENS = 77


class CallableUNet(Protocol):
    """What a denoising loop needs of a UNet."""

    @property
    def config(self) -> Any: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        *,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None,
        return_dict: bool,
    ) -> tuple[Tensor, ...]:
        """(n, 4, h, w), (n,) and (n, 77, d) -> (n, 4, h, w), the prediction, alone in a tuple."""


def rehearsal(
    unet: CallableUNet, sides: Sides, rows: int, device: torch.device | str
) -> Callable[[], Tensor]:
    """One pass of so many rows; the tensors that it reads are made now, and hold anything."""

    def empty(*shape: int) -> Tensor:
        return torch.zeros(rows, *shape, device=device, dtype=unet.dtype)

    config = unet.config
    added = None
    if config.addition_embed_type == "text_time":
        numbers = SIZE_NUMBERS * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - numbers
        added = {"text_embeds": empty(pooled), "time_ids": empty(SIZE_NUMBERS)}
    latents, text = (
        empty(config.in_channels, *sides),
        empty(TEXT_TOKENS, config.cross_attention_dim),
    )
    timesteps = torch.full((rows,), 500.0, device=device)
    return lambda: unet(
        latents, timesteps, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False
    )[0]
