"""`python -m trainer.rank FOLDER N`: stage 2 as rank N of several; see `trainer.company`."""

import os
import sys
from pathlib import Path

import torch

from diffusion.erasure import FILENAME as ERASURE
from diffusion.erasure import Erasure
from diffusion.loading import load_prompt_encoder, load_unet
from diffusion.model_concepts import ModelConcepts
from trainer.company import MEETING, READY, TASK, Task, device_of
from trainer.neighbours import protecting
from trainer.reporting import quieten_libraries
from trainer.steered import StageOne, steer
from trainer.trce.ranks import Ranks, joined


def main(folder: Path, number: int) -> None:
    task = Task.model_validate_json((folder / TASK).read_text())
    quieten_libraries()
    torch.set_num_threads(task.threads)
    device = device_of(number, task.device)
    begun = StageOne(
        base_digest=task.base_digest,
        encoder=load_prompt_encoder(task.base, task.manifest, device=device),
        known=ModelConcepts.of(task.base),
        native_px=task.native_px,
        concepts=task.concepts,
        erasure=Erasure.load(folder / ERASURE),
    )
    unet, scheduler = load_unet(task.base, task.manifest, device=device)
    # Rank 0 waits for this line alone, and reads no further.
    os.write(sys.stdout.fileno(), READY)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    ranks = Ranks(number, task.ranks)
    told = protecting(task.spec, task.neighbours, task.concepts)
    with joined(ranks, device, folder / MEETING):
        steer(
            *(unet, scheduler, begun, told),
            report=lambda _: None,
            work=task.work,
            ranks=ranks,
            prompts_read=begun.encoder.release,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
