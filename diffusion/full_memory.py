"""Memory that ran out, on whatever device."""

from collections.abc import Callable
from typing import TypeVar

import torch

from core.errors import DeviceOutOfMemory
from diffusion.freed_memory import return_to_system

T = TypeVar("T")

CPU_IS_FULL = "DefaultCPUAllocator: can't allocate memory"


def ran_out(error: BaseException) -> bool:
    """Whether torch raised it for want of memory; of a CPU's it has no class of its own."""
    full = isinstance(error, RuntimeError) and CPU_IS_FULL in str(error)
    return full or isinstance(error, torch.OutOfMemoryError)


def within_memory(work: Callable[[], T], otherwise: str) -> T:
    """What `work` returns.

    Args:
        otherwise: what is said when memory runs out.

    Raises:
        DeviceOutOfMemory: it did; what `work` had taken is free again.
    """
    try:
        return work()
    except RuntimeError as error:
        if not ran_out(error):
            raise
    # Out of the block: the error holds what was computed.
    torch.cuda.empty_cache()
    return_to_system()
    raise DeviceOutOfMemory(otherwise)
