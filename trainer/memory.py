"""How much memory a stretch of this process has used at most."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from core.edits import StageCost

# getrusage counts kilobytes on Linux, bytes on macOS.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
CLEAR_PEAK = "5"
"""See proc_pid_clear_refs(5)."""


def peak_memory_bytes(device: torch.device | str) -> int:
    """Of the process so far on a CPU; of PyTorch's allocations on a CUDA device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # What getrusage says on Linux includes what a parent had before it started this program.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT_BYTES


def forget_peak(device: torch.device | str) -> None:
    """Let the peak count from here on; where the system cannot, it goes on from the start."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)


@contextlib.contextmanager
def cost(of: dict[str, StageCost], stage: str, device: torch.device | str) -> Iterator[None]:
    """Enter into `of` what the body of the `with` cost."""
    started = time.monotonic()
    forget_peak(device)
    yield
    of[stage] = StageCost(
        seconds=round(time.monotonic() - started, 3), peak_memory_bytes=peak_memory_bytes(device)
    )
