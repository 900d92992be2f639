"""What Prometheus reads of one worker.

Of the processes that a worker consists of, only the one that owns the device counts and shows
anything, so there is nothing to merge; when it is started anew its counters begin at zero, as
Prometheus expects of a process.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server

from core.disk_metrics import DiskOfData

log = structlog.get_logger()

QUEUE_WAIT = Histogram(
    "t2i_queue_wait_seconds",
    "From the acceptance of a job to its first claim.",
    ["kind"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
BATCH_SIZE = Histogram(
    "t2i_batch_size",
    "Pictures that took part in a denoising step.",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256),
)
BATCH_LIMIT = Gauge(
    "t2i_batch_limit", "Pictures that this worker would let take part, TRCE_BATCH_ROWS."
)
DEVICE_BUSY = Counter(
    "t2i_device_busy_seconds_total",
    "Time that the thread which owns the device spent at it, and at what.",
    ["work"],
)
STEP = Histogram(
    "t2i_denoise_step_seconds",
    "One denoising step of a whole batch; shape is the square that its largest picture fills.",
    ["shape"],
    buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10),
)
IMAGES = Counter("t2i_images_total", "Pictures, by what became of them.", ["outcome"])
NOT_STORED = Counter(
    "t2i_pictures_not_stored_total",
    "Times that pictures of a job were drawn and could not be stored, so that it waits again.",
)
SWAP = Histogram(
    "t2i_model_swap_seconds",
    "Loading and verifying: `full` a base model, `delta` an erased one; `swap`: copying tensors.",
    ["kind"],
    buckets=(0.001, 0.003, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
REFUSED = Counter(
    "t2i_model_refusals_total",
    "Times that a model to draw with failed its checks.",
    ["model"],
)
BLOCKS = Counter("t2i_safety_blocks_total", "What a policy objected to.", ["stage", "category"])
ERASURE = Gauge(
    "t2i_erasure_progress_ratio", "How far the present stage of the running erasure is.", ["stage"]
)
GPU_MEMORY = Gauge("t2i_gpu_memory_bytes", "On this worker's device.", ["state"])
GPU_UTILISATION = Gauge(
    "t2i_gpu_utilisation_ratio",
    "Share of the last moment in which the GPU computed, for whomever, as its driver has it.",
    ["gpu"],
)
DISK = DiskOfData()
REGISTRY.register(DISK)

Work = Literal["load", "encode", "swap", "step", "decode", "preview"]


def listen(port: int, host: str) -> None:
    """Show them on `port`; 0: nowhere. A port that is taken is no reason not to work."""
    if port == 0:
        return
    try:
        start_http_server(port, host)
    except OSError as error:
        log.warning("no metrics", port=port, error=error.strerror)


def watch_disk(data_dir: Path) -> None:
    """From now on, tell how much room is left below the data folder."""
    DISK.folder = data_dir


def watch_gpu(number: int | None) -> None:
    """From now on, tell what torch holds on a CUDA device, and how busy its driver says it is.

    Where the driver cannot be asked, as of another vendor, nothing is told of the latter.

    Args:
        number: None: the present one.
    """
    import torch  # noqa: PLC0415  (this file is read where there is none)

    GPU_MEMORY.labels("allocated").set_function(lambda: torch.cuda.memory_allocated(number))
    GPU_MEMORY.labels("reserved").set_function(lambda: torch.cuda.memory_reserved(number))
    try:
        torch.cuda.utilization(number)
    except Exception as error:  # noqa: BLE001  (each vendor's library has errors of its own)
        log.info("no utilisation of the GPU", reason=type(error).__name__)
        return
    busy = GPU_UTILISATION.labels(str(number or 0))
    busy.set_function(lambda: torch.cuda.utilization(number) / 100)


@contextlib.contextmanager
def at_device(work: Work) -> Iterator[None]:
    """Around what the device is used for. It counts also where it fails: the time has gone."""
    began_s = time.perf_counter()
    try:
        yield
    finally:
        DEVICE_BUSY.labels(work).inc(time.perf_counter() - began_s)


@contextlib.contextmanager
def timed_step(*, rows: int, largest_px: tuple[int, int]) -> Iterator[None]:
    """Around one denoising step of `rows` pictures; width and height of the largest."""
    began = time.perf_counter()
    yield
    STEP.labels(_square(*largest_px)).observe(time.perf_counter() - began)
    BATCH_SIZE.observe(rows)


def erasing(stage: str, ratio: float) -> None:
    """The erasure that runs is in `stage`; only that one is shown."""
    ERASURE.clear()
    ERASURE.labels(stage).set(ratio)


def not_erasing() -> None:
    ERASURE.clear()


def _square(width_px: int, height_px: int) -> str:
    """The smallest with a power of two for its side that has as many pixels: clients choose sizes
    freely, and each shape that was ever drawn is kept."""
    side_px = 1 << math.ceil(math.log2(max(1, width_px * height_px)) / 2)
    return f"{side_px}x{side_px}"
