"""How much memory this process has used at most."""

import resource
import sys

import torch

# getrusage counts kilobytes on Linux, bytes on macOS.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def peak_memory_bytes(device: torch.device | str) -> int:
    """Of the process so far on a CPU; of PyTorch's allocations on a CUDA device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT_BYTES
