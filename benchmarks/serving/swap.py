"""A swap at the true size of SD 1.5 against a plain copy of as many bytes.

The swap is that of the workers, from one erased model with both stages to another, its check of
what it wrote included. Both are done as a worker on a CPU would do them: on one thread, and with
memory in huge pages, which glibc is told of when a program starts. So a process of its own
measures, `python -m benchmarks.serving.swap`, and prints its figures as JSON.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.serving import true_size
from benchmarks.serving.as_a_worker import measured
from diffusion.swapping import SwappableUNet

ROUNDS = 15
THREADS = 1
"""The default of TRCE_CPU_THREADS."""


def measure() -> dict[str, Any]:
    return measured("benchmarks.serving.swap")


def figures() -> dict[str, Any]:
    unet = true_size.unet()
    swappable = SwappableUNet(unet)
    parameters = dict(unet.named_parameters())
    models = [swappable.prepared(true_size.erased_tensors(parameters, seed)) for seed in (1, 2)]
    source = torch.empty(models[0].size_bytes, dtype=torch.uint8).random_()
    target = torch.empty_like(source)
    swaps, copies = [], []
    for turn in range(ROUNDS + 2):
        swapped = _seconds(lambda: swappable.wear(models[turn % 2]))  # noqa: B023
        copied = _seconds(lambda: target.copy_(source))
        if turn > 1:  # the base's tensors have been kept, pages are there
            swaps.append(swapped)
            copies.append(copied)
    return {
        "swap_copy_ratio": statistics.median(
            swap / copy for swap, copy in zip(swaps, copies, strict=True)
        ),
        "detail": {
            "bytes": models[0].size_bytes,
            "tensors": len(models[0].tensors),
            "swap_ms": statistics.median(swaps) * 1000,
            "copy_ms": statistics.median(copies) * 1000,
            "threads": torch.get_num_threads(),
        },
    }


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    print(json.dumps(figures()))
