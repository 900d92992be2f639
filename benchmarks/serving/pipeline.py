"""The bare StableDiffusionPipeline call, in a process of its own, at its best number of threads.

`python -m benchmarks.serving.pipeline` draws what stdin asks for, a JSON array of prompt, steps,
seed and threads a line, and prints the seconds that the call took.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL.Image import Image

from benchmarks.serving.workload import GUIDANCE, MODEL, Order
from benchmarks.stack import clean_environment

TRIES = 2
PROBE_STEPS = 4


def load_pipeline() -> Any:
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415  (not in those that only ask)

    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, order: Order) -> Image:
    import torch  # noqa: PLC0415

    image: Image = pipeline(
        order.prompt,
        num_inference_steps=order.steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(order.seed),
    ).images[0]
    return image


class Calls:
    """Asks the process for calls."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def seconds(self, order: Order, *, threads: int) -> float:
        self._stdin.write(json.dumps([order.prompt, order.steps, order.seed, threads]) + "\n")
        self._stdin.flush()
        return float(self._stdout.readline())

    def best_threads(self) -> int:
        """Of 1 and all cores: what is faster depends on the model, and on who else computes."""
        order = Order("a picture of an apple", PROBE_STEPS, 1)
        choices = sorted({1, os.cpu_count() or 1})
        taken: dict[int, list[float]] = {threads: [] for threads in choices}
        for _ in range(TRIES + 1):
            for threads in choices:
                taken[threads].append(self.seconds(order, threads=threads))
        return min(choices, key=lambda threads: statistics.median(taken[threads][1:]))


@contextmanager
def calling() -> Iterator[Calls]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving.pipeline"],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:  # closes its stdin in the end, which ends it
        yield Calls(process)


def main() -> None:
    import torch  # noqa: PLC0415

    pipeline = load_pipeline()
    for line in sys.stdin:
        prompt, steps, seed, threads = json.loads(line)
        torch.set_num_threads(threads)
        began = time.perf_counter()
        draw(pipeline, Order(prompt, steps, seed))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
