"""What an erasure costs at inference: what is done once for a prompt, and in every step.

Both sides of a comparison are timed in turn, in one run, and their medians are taken: so other
work on the machine hardly shows in the ratio.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.errors import ModelUnsupported
from diffusion.erasure import Erasure, write_tensors
from trainer.trce.texts import Texts, predict

ROUNDS = 5
TIMES = 20
"""How often a map, which takes well below a millisecond, is timed in one round."""
TOKENS = 77
MIDDLE_STEP = 500


def map_seconds(erasure: Erasure, device: torch.device | str) -> float:
    """To map one prompt, which a worker does once for a picture; nothing without a text map."""
    if erasure.text_map is None:
        return 0.0
    maps = [one for one in (erasure.text_map, erasure.pooled_map) if one is not None]
    prompt = torch.ones(TOKENS, len(maps[0]), device=device)
    pooled = torch.ones(1, len(maps[-1]), device=device)

    def work() -> Tensor:
        for _ in range(TIMES):
            mapped = erasure.map_prompts(prompt)
            mapped_pooled = erasure.map_pooled(pooled) if len(maps) > 1 else mapped
        return mapped_pooled

    return median(_seconds(work) for _ in range(ROUNDS)) / TIMES


@torch.no_grad()
def step_seconds(
    unet: UNet2DConditionModel, texts: Texts, *sides: Mapping[str, Tensor]
) -> list[float]:
    """For each side, one guided denoising step of one picture with the tensors of that side.

    Args:
        texts: two rows, without a prompt and with one.
        sides: changed tensors of the UNet; it is left with those of the last side.
    """
    size = unet.config.sample_size
    latents = torch.ones(2, unet.config.in_channels, size, size, device=unet.device)
    timestep = torch.tensor(MIDDLE_STEP, device=unet.device)
    seconds: list[list[float]] = [[] for _ in sides]
    for round_ in range(ROUNDS + 1):
        for tensors, measured in zip(sides, seconds, strict=True):
            write_tensors(unet, tensors)
            taken = _seconds(lambda: predict(unet, latents, timestep, texts))
            if round_:  # The first one warms caches up.
                measured.append(taken)
    return [median(one) for one in seconds]


def _seconds(work: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    # Reading a number waits for a device that works on its own.
    if not bool(work().isfinite().all()):
        raise ModelUnsupported("the erased model's prediction is not finite")
    return time.perf_counter() - started
