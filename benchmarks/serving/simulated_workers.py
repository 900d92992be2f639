"""Inference workers whose device is simulated: a pass takes as long as a GPU would, and sleeps.

`python -m benchmarks.serving.simulated_workers 16` with REDIS_URL and TRCE_DATA_DIR of an
installation runs sixteen. Everything else is the worker as it is: Celery, claims, leases, batches,
schedulers, files and records. Only `load_base` is another, and processes are forked, not
spawned, so that 64 of them need the libraries in memory once.
"""

import argparse
import os
import signal
import sys
import time
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion.loading import Components, load_base
from worker import model_loader

STEP_S, PICTURE_S = 0.10, 0.05
"""About an SDXL at 1024 px: of a step at all, and of each guided picture in it."""
DECODE_S = 0.05
ROWS_PER_PICTURE = 2


def load_simulated(*arguments: object, **options: object) -> Components:
    """The model as it is loaded, verified; then its UNet and VAE compute nothing any more."""
    components = load_base(*arguments, **options)  # type: ignore[arg-type]
    vae = components.vae
    px_per_latent = 2 ** (len(vae.config.block_out_channels) - 1)

    def predict(latents: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        time.sleep(STEP_S + PICTURE_S * len(latents) / ROWS_PER_PICTURE)
        return (torch.zeros_like(latents),)

    def decode(latents: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        time.sleep(DECODE_S * len(latents))
        height, width = (side * px_per_latent for side in latents.shape[-2:])
        return (latents.new_zeros(len(latents), 3, height, width),)

    components.unet.forward = predict
    vae.decode = decode
    return components


def run_worker(number: int) -> None:
    """As `python -m worker inference --name <number>`, on a simulated device."""
    # Says so where there is no such name any more, and true UNets would be measured.
    patch.object(model_loader, "load_base", load_simulated).start()
    sys.argv = ["worker", "inference", "--name", f"simulated-{number}"]
    from core.queue import CELERY  # noqa: PLC0415
    from worker.__main__ import main as run  # noqa: PLC0415

    CELERY["worker_pool_start_method"] = "fork"
    run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first one's number")
    arguments = parser.parse_args()
    children = []
    for number in range(arguments.first, arguments.first + arguments.count):
        if child := os.fork():
            children.append(child)
        else:
            run_worker(number)
            os._exit(0)

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
