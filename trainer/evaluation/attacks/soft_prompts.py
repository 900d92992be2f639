"""A text encoder read with vectors in the place of some tokens, so that gradients reach them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel


@contextmanager
def _vectors_at(text_encoder: CLIPTextModel, vectors: Tensor, start: int) -> Iterator[None]:
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


def soft_states(
    text_encoder: CLIPTextModel, rows: Tensor, vectors: Tensor, *, start: int = 1
) -> Tensor:
    """The encoder's last hidden states, (n, length, d), differentiable in `vectors`.

    Args:
        rows: (n, length) token ids; those that vectors stand for may be anything but the end.
        vectors: (n, k, d), put at positions `start` to `start + k`.
    """
    with _vectors_at(text_encoder, vectors, start):
        states: Tensor = text_encoder(rows.to(text_encoder.device)).last_hidden_state
    return states
