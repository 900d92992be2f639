"""What memory holds when something is measured that reads files.

The host of a virtual machine takes memory back that has been free for some seconds, and gives it
again page by page as it is touched. So one and the same load of 2 GB took 0.4 s, or 2.5 s where
the host had taken what it was read into. What is compared begins with memory that the host has
given already.
"""

import gc
import os
from pathlib import Path

import torch

SPARE = 2
"""For the tensors, and for pages of the files they are read from."""


def use_memory(size_bytes: int) -> None:
    """Have what is free given to this machine: enough to load `size_bytes` of weights."""
    gc.collect()
    torch.ones(SPARE * size_bytes, dtype=torch.uint8)


def leave_memory(folder: Path) -> None:
    """The files of a folder are on the disk alone, as after a start of the machine."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
