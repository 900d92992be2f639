"""The limit: the UNet alone on precomputed embeddings, at its best split of this machine.

No scheduler, no text encoder, no VAE, no requests: nothing can draw faster with this UNet here.
Its weights and its memory lie as the workers lay them, and keys and values are computed once; it
computes as diffusers does. A loop of the workers' own blocks is there, too. The
best split into processes, threads and rows per pass is searched for in each run, among those that
hold no more pictures at a time than there are clients: nobody draws what was not asked for yet.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from benchmarks.serving.workload import MEAN_STEPS, MODEL, ROWS_PER_STEP
from benchmarks.stack import worker_environment
from diffusion.lean_blocks import make_lean
from diffusion.loading import load_unet
from diffusion.text_memory import TextMemory, remember_projections

ROWS = (2, 4, 8, 16, 32, 64)
SEARCH_S = 1.0
TOKENS = 77


@dataclass(frozen=True)
class Split:
    processes: int
    threads: int
    rows: int


class Looping:
    """Processes that each run the bare loop when told to."""

    def __init__(self, processes: int, threads: int) -> None:
        self._processes = processes
        self._threads = threads
        self._loops: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        for _ in range(self._processes):
            self._loops.append(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "benchmarks.serving.bare_loop"),
                        *("--threads", str(self._threads)),
                    ],
                    env=worker_environment(self._threads),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        for loop in self._loops:
            _answer(loop)  # it is loaded

    def pictures_per_s(self, rows: int, seconds: float, *, lean: bool = False) -> float:
        """Of all together, were every picture as many passes as the mean of the workload.

        Args:
            lean: of the workers' own blocks (`diffusion/lean_blocks.py`) instead of diffusers'.
        """
        for loop in self._loops:
            assert loop.stdin is not None
            loop.stdin.write(json.dumps([rows, seconds, lean]) + "\n")
            loop.stdin.flush()
        return sum(_answer(loop) for loop in self._loops) / ROWS_PER_STEP / MEAN_STEPS

    def stop(self) -> None:
        for loop in self._loops:
            assert loop.stdin is not None
            assert loop.stdout is not None
            loop.stdin.close()
            loop.wait()
            loop.stdout.close()


@contextmanager
def looping(processes: int, threads: int) -> Iterator[Looping]:
    loops = Looping(processes, threads)
    loops.start()
    try:
        yield loops
    finally:
        loops.stop()


@dataclass(frozen=True)
class Found:
    best: Split
    """The fastest that draws no more pictures at a time than it may."""
    rows_of_any: int
    """Of a pass, with which the same processes and threads are fastest, however many they draw."""
    pictures_per_s: dict[str, float]
    """Of each split that was tried."""


def best_split(cores: int, pictures: int) -> Found:
    """The fastest split of `cores` that draws at most so many pictures at a time."""
    found: dict[Split, float] = {}
    for processes in range(1, cores + 1):
        if cores % processes:
            continue
        threads = cores // processes
        with looping(processes, threads) as loops:
            for rows in ROWS:
                speed = loops.pictures_per_s(rows, SEARCH_S)
                found[Split(processes, threads, rows)] = speed
    within = [split for split in found if split.processes * split.rows <= pictures * ROWS_PER_STEP]
    best = max(within, key=lambda split: found[split])
    of_any = max(ROWS, key=lambda rows: found[replace(best, rows=rows)])
    told = {f"{s.processes} x {s.threads} x {s.rows}": speed for s, speed in found.items()}
    return Found(best, of_any, told)


def _answer(loop: "subprocess.Popen[str]") -> float:
    assert loop.stdout is not None
    return float(loop.stdout.readline())


def rows_per_s(unet: torch.nn.Module, rows: int, seconds: float) -> float:
    side = unet.config.sample_size
    latents = torch.randn(rows, unet.config.in_channels, side, side)
    timesteps = torch.linspace(999, 1, rows)
    prompts = torch.randn(rows, TOKENS, unet.config.cross_attention_dim)
    embeddings = TextMemory("cpu", unet.dtype).stacked(list(prompts), alone=True)
    with torch.inference_mode():
        unet(latents, timesteps, encoder_hidden_states=embeddings)
        began, passes = time.perf_counter(), 0
        while (lasted := time.perf_counter() - began) < seconds:
            unet(latents, timesteps, encoder_hidden_states=embeddings, return_dict=False)
            passes += 1
    return rows * passes / lasted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    unets = [load_unet(MODEL, None)[0] for _ in range(2)]
    for unet in unets:
        unet.to(memory_format=torch.channels_last)
        remember_projections(unet)
    make_lean(unets[True])
    for unet in unets:
        rows_per_s(unet, 2, 0.5)
    print(0, flush=True)
    for line in sys.stdin:
        rows, seconds, lean = json.loads(line)
        print(rows_per_s(unets[lean], rows, seconds), flush=True)


if __name__ == "__main__":
    main()
