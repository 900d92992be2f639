"""Prompts read with vectors in the place of some tokens, so that gradients reach them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from diffusion.prompts import EncodedPrompts, PromptEncoder


def soft_prompts(
    encoder: PromptEncoder, rows: Sequence[Tensor], vectors: Tensor, *, start: int = 1
) -> EncodedPrompts:
    """What `encoder` makes of token ids of which some are replaced, differentiable in `vectors`.

    Args:
        rows: (n, length) token ids for each text encoder; those that vectors stand for may be
            anything but the end.
        vectors: (n, k, d), put at positions `start` to `start + k`; d is the width of all text
            encoders together.
    """
    widths = [int(one.config.hidden_size) for one in encoder.encoders]
    with ExitStack() as stack:
        for one, part in zip(encoder.encoders, vectors.split(widths, dim=-1), strict=True):
            stack.enter_context(_vectors_at(one, part, start))
        return encoder.read(rows)


@contextmanager
def _vectors_at(text_encoder: Any, vectors: Tensor, start: int) -> Iterator[None]:
    """Within: tokens from position `start` on are embedded as `vectors` (n, k, d)."""

    def put_in(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        k = vectors.shape[1]
        return torch.cat(
            [output[:, :start], vectors.to(output.dtype), output[:, start + k :]], dim=1
        )

    handle = text_encoder.get_input_embeddings().register_forward_hook(put_in)
    try:
        yield
    finally:
        handle.remove()
