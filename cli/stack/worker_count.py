"""How many workers draw on this machine, where nobody has said: one for each device.

Asked without torch, which takes seconds to say how many GPUs it sees.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from core.settings import Settings

NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
"""The driver keeps a folder for each."""
MEMORY = Path("/proc/meminfo")
BYTES_EACH = 2 * 2**30
"""Of a worker on a CPU, with a small model; those with larger ones are told how many to be."""


def inference_workers(settings: Settings) -> int:
    """What TRCE_INFERENCE_WORKERS says, or one for each GPU; without any, as many as the cores
    that this process may use have threads for, and the memory room."""
    if settings.inference_workers is not None:
        return settings.inference_workers
    if ":" in settings.device:
        return 1
    gpus = 0 if settings.device == "cpu" else count_gpus(os.environ)
    if gpus or settings.device == "cuda":
        return max(1, gpus)
    if not MEMORY.exists():  # not Linux: there is no asking what this process may have
        return max(1, (os.cpu_count() or 1) // settings.cpu_threads)
    cores = len(os.sched_getaffinity(0)) // settings.cpu_threads
    return max(1, min(cores, available_bytes() // BYTES_EACH))


def count_gpus(environ: Mapping[str, str], driver: Path = NVIDIA_GPUS) -> int:
    """Those that CUDA would show: after a number that is none it shows no more."""
    there = len(list(driver.iterdir())) if driver.is_dir() else 0
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return there
    shown = 0
    for name in named.split(","):
        if not name.strip() or name.strip().startswith("-"):
            break
        shown += 1
    return min(shown, there)


def available_bytes() -> int:
    """Of the machine's memory, what could be had without swapping, as the kernel estimates it."""
    lines = MEMORY.read_text().splitlines()
    (told,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(told.split()[1]) * 1024
