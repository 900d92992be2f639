"""Where and how a worker computes: which device, in which precision and layout."""

import re
from dataclasses import dataclass

import torch

from core.settings import Settings
from trainer.room import free_memory_bytes

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format
    """Of the weights of UNet and VAE."""


def placement(settings: Settings, owner: str, *, gpus: int) -> Placement:
    """The workers of a host share its GPUs out by their numbers: one each, if there are enough.

    Args:
        owner: the worker's name, such as `inference-1@host`.
        gpus: how many torch sees.
    """
    device = _device(settings.device, owner, gpus)
    # float16 is slow on CPUs, and nothing there is short of memory.
    usual = "float32" if device.type == "cpu" else "float16"
    dtype = DTYPES[usual if settings.precision == "auto" else settings.precision]
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    return Placement(device, dtype, layout)


def free_bytes(device: torch.device) -> int | None:
    """What this process could still have of the device's memory; None where nobody says.

    On a GPU, what torch keeps for later counts as well: it is the next pass's.
    """
    free = free_memory_bytes(device)
    if free is None or device.type != "cuda":
        return free
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _device(name: str, owner: str, gpus: int) -> torch.device:
    if name == "auto" and not gpus:
        return torch.device("cpu")
    if name in {"auto", "cuda"}:
        number = re.search(r"-(\d+)@", owner)
        return torch.device("cuda", int(number[1]) % max(1, gpus) if number else 0)
    return torch.device(name)
