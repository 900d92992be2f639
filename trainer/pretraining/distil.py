"""Stage `distil`: the text encoder learns general English from its teacher, without pictures."""

import json
import logging
import time

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from trainer.pretraining.folders import Folders
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate
from trainer.pretraining.text_encoder import (
    Distillation,
    encode,
    new_text_encoder,
    start_from_teacher,
)

BATCH = 128

log = logging.getLogger(__name__)


def train(folders: Folders, *, steps: int, peak: float = 1e-3, seed: int = 0) -> None:
    """Writes `text_distilled` and the distillation's linear map beside it."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    texts: list[str] = json.loads(folders.teacher.with_suffix(".json").read_text())
    vectors = load_file(folders.teacher)
    targets = vectors["text"].float()
    tokenizer = CLIPTokenizer.from_pretrained(folders.tokenizer)

    student, distillation = new_text_encoder(tokenizer), Distillation()
    start_from_teacher(student, vectors["token"].float())
    weights = [*student.parameters(), *distillation.parameters()]
    optimizer = torch.optim.AdamW(
        weights, lr=peak, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )

    began, running = time.monotonic(), 0.0
    rounds = batches(torch.arange(len(texts)), BATCH, generator)
    for step, rows in zip(range(steps), rounds, strict=False):
        set_rate(optimizer, rate(step, steps, peak=peak))
        states = encode(student, tokenizer, [texts[at] for at in rows.tolist()])
        loss = distillation(states, targets[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            log.info("%d %.0fs %.4f", step, time.monotonic() - began, running)
        if step % 500 == 499 or step == steps - 1:
            student.save_pretrained(folders.distilled)
            save_file(distillation.state_dict(), folders.work / "distillation.safetensors")
