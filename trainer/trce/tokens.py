"""Which token embeddings of a prompt pair stage 1 moves, and onto which it moves them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.prompts import EncodedPrompts
from trainer.trce.alignment import align

EotTokens = Literal["first", "all"]


@dataclass(frozen=True)
class TokenPairs:
    """Rows of embeddings: row i of `unsafe` is to become row i of `safe`."""

    unsafe: Tensor
    """(n, d) float64, the paper's e_m."""
    safe: Tensor
    """(n, d) float64, the paper's e_s."""
    weights: Tensor
    """(n,) float64; the rows of one prompt pair share the weight of the pair."""


def moved_tokens(
    unsafe: EncodedPrompts,
    safe: EncodedPrompts,
    weights: Tensor,
    *,
    which: EotTokens,
    words: tuple[Tensor, Tensor] | None = None,
) -> TokenPairs:
    """The [EoT] embeddings of prompt pairs, and those of their words where `words` is given.

    A prompt is padded to 77 tokens with further [EoT]s, some 60 of them, which have read the
    whole prompt like the first. `first` moves the first onto the first; `all` moves the padding
    too, each onto what stands at its own position in the safe prompt, or where the safe prompt
    is longer, onto the nearest [EoT] that it has.

    The words that are moved are those from the first that differs, see `align`. One prompt pair
    has its weight whichever tokens are moved, and all of them weigh the same.

    Args:
        weights: (prompts,), one for each pair.
        words: (prompts, 77) token ids of the unsafe prompts and of the safe ones.
    """
    positions = torch.arange(unsafe.embeddings.shape[1])
    eot, safe_eot = unsafe.eot[:, None], safe.eot[:, None]
    moved = positions == eot if which == "first" else positions >= eot
    # Past its first [EoT] the safe prompt holds padding; where there is none, its last token.
    padding = torch.maximum(positions, safe_eot + 1).clamp(max=len(positions) - 1)
    partner = torch.where(positions == eot, safe_eot, padding)
    if words is not None:
        for number, ids in enumerate(zip(*words, strict=True)):
            ends = int(unsafe.eot[number]), int(safe.eot[number])
            of_words = (row[:end].tolist() for row, end in zip(ids, ends, strict=True))
            for here, there in align(*of_words):
                moved[number, here], partner[number, here] = True, there

    prompt, position = moved.nonzero(as_tuple=True)
    share = weights.double() / moved.sum(dim=1)
    return TokenPairs(
        unsafe=unsafe.embeddings[prompt, position].cpu().double(),
        safe=safe.embeddings[prompt, partner[prompt, position]].cpu().double(),
        weights=share[prompt],
    )


def pooled_pairs(
    unsafe: EncodedPrompts, safe: EncodedPrompts, weights: Tensor
) -> TokenPairs | None:
    """The pooled embeddings of prompt pairs, one row each; None for models without.

    SDXL reads the whole prompt a second time, in one vector, so a concept has to leave both.
    """
    if unsafe.pooled is None or safe.pooled is None:
        return None
    return TokenPairs(unsafe.pooled.cpu().double(), safe.pooled.cpu().double(), weights.double())
