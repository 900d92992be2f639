"""Prompt pairs -> the statistics of each concept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from diffusion.prompts import PromptEncoder
from trainer.concepts import PromptPair
from trainer.trce.statistics import Statistics
from trainer.trce.tokens import EotTokens, end_of_text_pairs, pooled_pairs

BATCH = 32


def gather_statistics(
    encoder: PromptEncoder,
    pairs: Mapping[str, Sequence[PromptPair]],
    *,
    which: EotTokens,
    advance: Callable[[int], None],
) -> dict[str, Statistics]:
    """Concept name -> sums over its pairs; `advance` is told how many pairs were encoded."""
    return {
        name: Statistics.total(
            _of_batch(encoder, of_concept[start : start + BATCH], which, advance)
            for start in range(0, len(of_concept), BATCH)
        )
        for name, of_concept in pairs.items()
        # All its words may stand under an earlier concept already.
        if of_concept
    }


def _of_batch(
    encoder: PromptEncoder,
    pairs: Sequence[PromptPair],
    which: EotTokens,
    advance: Callable[[int], None],
) -> Statistics:
    unsafe = encoder.encode_all([pair.unsafe for pair in pairs])
    safe = encoder.encode_all([pair.safe for pair in pairs])
    weights = torch.tensor([pair.weight for pair in pairs], dtype=torch.float64)
    advance(len(pairs))
    of_tokens = Statistics.of(end_of_text_pairs(unsafe, safe, weights, which=which))
    pooled = pooled_pairs(unsafe, safe, weights)
    return replace(of_tokens, pooled=Statistics.of(pooled)) if pooled else of_tokens
