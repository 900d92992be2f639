"""A pass of the UNet and of the VAE as workers compute it, of the same by diffusers' own forwards.

CPU time of one thread, the least of many turns, with texts remembered by both and the weights laid
out as workers lay them. At the sizes of SD 1.5 the weights are random, and the picture has 256
pixels a side. Twin rows are left out: both compute every row.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from benchmarks.serving import true_size
from benchmarks.serving.as_a_worker import measured
from benchmarks.serving.bare_loop import TOKENS
from benchmarks.serving.workload import MODEL
from diffusion.lean_blocks import make_lean
from diffusion.loading import load_unet_and_vae
from diffusion.text_memory import TextMemory, remember_projections

JUDGED = "shipped, 32 rows"


@dataclass(frozen=True)
class Row:
    """What is computed, by diffusers' forwards and by lean ones, and how often."""

    plain: Callable[[], Any]
    lean: Callable[[], Any]
    turns: int


def measure() -> dict[str, Any]:
    return measured("benchmarks.serving.blocks")


def figures() -> dict[str, Any]:
    shipped = [_made(*load_unet_and_vae(MODEL, None)[:2], lean=lean) for lean in (False, True)]
    large = [true_size.unet().float().eval() for _ in range(2)]
    large[1].load_state_dict(large[0].state_dict())
    for unet, lean in zip(large, (False, True), strict=True):
        _made(unet, None, lean=lean)
    (plain, plain_vae), (lean, lean_vae) = shipped
    rows = {
        f"shipped, {rows} rows": Row(_pass(plain, rows), _pass(lean, rows), turns=40)
        for rows in (2, 8, 32)
    }
    rows["attention of 32 rows, 77 keys, and 80 with a mask"] = Row(
        _attention(TOKENS), _attention(80), turns=40
    )
    rows["shipped, VAE"] = Row(_decoding(plain_vae), _decoding(lean_vae), turns=40)
    rows["SD 1.5's UNet, 2 rows"] = Row(_pass(large[0], 2, 32), _pass(large[1], 2, 32), turns=5)
    milliseconds = {}
    with torch.inference_mode():
        for name, row in rows.items():
            plain_ms, lean_ms = _least((row.plain, row.lean), row.turns)
            milliseconds[name] = {"plain_ms": plain_ms, "lean_ms": lean_ms}
    ratios = {name: one["lean_ms"] / one["plain_ms"] for name, one in milliseconds.items()}
    return {
        "lean_pass_ratio": ratios[JUDGED],
        "detail": {"milliseconds": milliseconds, "ratios": ratios},
    }


def _made(
    unet: UNet2DConditionModel, vae: AutoencoderKL | None, *, lean: bool
) -> tuple[UNet2DConditionModel, Any]:
    remember_projections(unet)
    for module in (unet, vae):
        if module is not None:
            module.to(memory_format=torch.channels_last)
            if lean:
                make_lean(module)
    return unet, vae


def _pass(unet: UNet2DConditionModel, rows: int, side: int = 8) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(rows)

    def some(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator)

    # Kept with what it has remembered.
    memory = TextMemory("cpu", unet.dtype)
    texts = memory.stacked(list(some(TOKENS, unet.config.cross_attention_dim)), alone=True)
    return partial(
        _one_pass, unet, some(4, side, side), torch.linspace(999, 1, rows), texts, memory
    )


def _one_pass(
    unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, texts: Tensor, _: TextMemory
) -> Any:
    return unet(latents, timesteps, encoder_hidden_states=texts, return_dict=False)


def _attention(keys: int) -> Callable[[], Any]:
    """Of the shipped model's first cross-attention: 64 queries of eight heads, 12 numbers each.

    Keys beyond a text's tokens are masked.
    """
    query, key = (torch.randn(32, count, 8, 12).transpose(1, 2) for count in (64, keys))
    mask = torch.zeros(1, 1, 1, keys)
    mask[..., TOKENS:] = -torch.inf
    masked = mask if keys > TOKENS else None
    return partial(F.scaled_dot_product_attention, query, key, key, attn_mask=masked)


def _decoding(vae: AutoencoderKL) -> Callable[[], Any]:
    return partial(vae.decode, torch.zeros(1, 4, 8, 8), return_dict=False)


def _least(contenders: tuple[Callable[[], Any], ...], turns: int) -> list[float]:
    """Milliseconds of CPU of each, in turns, after one that does not count."""
    least = [float("inf")] * len(contenders)
    for turn in range(turns + 1):
        for number, contender in enumerate(contenders):
            began = time.thread_time()
            contender()
            if turn:
                least[number] = min(least[number], (time.thread_time() - began) * 1e3)
    return least


if __name__ == "__main__":
    print(json.dumps(figures()))
