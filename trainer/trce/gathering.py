"""Prompt pairs -> the statistics of each concept."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch

from diffusion.prompts import PromptEncoder
from trainer.concepts import PromptPair
from trainer.trce.statistics import Statistics
from trainer.trce.tokens import EotTokens, moved_tokens, pooled_pairs

BATCH = 32


def gather_statistics(
    encoder: PromptEncoder,
    pairs: Mapping[str, Sequence[PromptPair]],
    *,
    which: EotTokens,
    words_of: Collection[str] = (),
    advance: Callable[[int], None],
) -> dict[str, Statistics]:
    """Concept name -> sums over its pairs; `advance` is told how many pairs were encoded.

    Args:
        words_of: concepts whose prompts have their words moved, beside their [EoT]s.
    """
    return {
        name: Statistics.total(
            _of_batch(
                *(encoder, of_concept[start : start + BATCH], which),
                words=name in words_of,
                advance=advance,
            )
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
    *,
    words: bool,
    advance: Callable[[int], None],
) -> Statistics:
    prompts = [pair.unsafe for pair in pairs], [pair.safe for pair in pairs]
    unsafe, safe = (encoder.encode_all(side) for side in prompts)
    ids = (encoder.token_ids(prompts[0]), encoder.token_ids(prompts[1])) if words else None
    weights = torch.tensor([pair.weight for pair in pairs], dtype=torch.float64)
    advance(len(pairs))
    of_tokens = Statistics.of(moved_tokens(unsafe, safe, weights, which=which, words=ids))
    pooled = pooled_pairs(unsafe, safe, weights)
    return replace(of_tokens, pooled=Statistics.of(pooled)) if pooled else of_tokens
