"""What Prometheus reads of one worker.

Of the processes that a worker consists of, only the one that owns the device counts and shows
anything, so there is nothing to merge; when it is started anew its counters begin at zero, as
Prometheus expects of a process.
"""

import contextlib
import time
from collections.abc import Iterator

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

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
STEP = Histogram(
    "t2i_denoise_step_seconds",
    "One denoising step of a whole batch; shape is its largest picture.",
    ["shape"],
    buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10),
)
IMAGES = Counter("t2i_images_total", "Pictures, by what became of them.", ["outcome"])
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


def listen(port: int, host: str) -> None:
    """Show them on `port`; 0: nowhere. A port that is taken is no reason not to work."""
    if port == 0:
        return
    try:
        start_http_server(port, host)
    except OSError as error:
        log.warning("no metrics", port=port, error=error.strerror)


def watch_gpu() -> None:
    """From now on, tell what torch holds on its CUDA device."""
    import torch  # noqa: PLC0415  (this file is read where there is none)

    GPU_MEMORY.labels("allocated").set_function(torch.cuda.memory_allocated)
    GPU_MEMORY.labels("reserved").set_function(torch.cuda.memory_reserved)


@contextlib.contextmanager
def timed_step(*, rows: int, largest_px: tuple[int, int]) -> Iterator[None]:
    """Around one denoising step of `rows` pictures; width and height of the largest."""
    began = time.perf_counter()
    yield
    STEP.labels(f"{largest_px[0]}x{largest_px[1]}").observe(time.perf_counter() - began)
    BATCH_SIZE.observe(rows)


def erasing(stage: str, ratio: float) -> None:
    """The erasure that runs is in `stage`; only that one is shown."""
    ERASURE.clear()
    ERASURE.labels(stage).set(ratio)


def not_erasing() -> None:
    ERASURE.clear()
