"""Stage `classifier`: an independent judge of pictures, trained on real ones alone.

It learns from the four styles and one further set, whole, worn, and sent through the
autoencoder; it is tested on three sets by other hands that nothing here has learnt from.
"""

import json
import logging
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification

from trainer.pretraining import augmentation, concepts
from trainer.pretraining.autoencoder import encode_all
from trainer.pretraining.averaging import Average
from trainer.pretraining.folders import Folders
from trainer.pretraining.image_encoder import PREPROCESSOR
from trainer.pretraining.pictures import load_pictures, to_model
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate
from trainer.pretraining.set_table import SetTable

BATCH = 64
ROUND_TRIPS = 0.4
"""Share of training pictures that come out of the autoencoder."""

log = logging.getLogger(__name__)


def new_classifier(names: list[str]) -> ResNetForImageClassification:
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128, 192],
            depths=[2, 2, 2, 1],
            layer_type="basic",
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
        )
    )


@torch.no_grad()
def round_trip(folders: Folders, pixels: Tensor) -> Tensor:
    """The pictures as the autoencoder reproduces them, uint8."""
    model = AutoencoderKL.from_pretrained(folders.autoencoder).eval()
    drawn = [model.decode(part).sample for part in encode_all(model, pixels).split(64)]
    return ((torch.cat(drawn).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def train(folders: Folders, *, steps: int, peak: float = 2e-3, seed: int = 0) -> None:
    """Writes `classifier` with its normalisation beside it, and `classifier.json`, its scores."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, labels, _ = load_pictures(folders)
    extras = load_file(folders.extras)
    pixels, labels = torch.cat([pixels, extras["pixels"]]), torch.cat([labels, extras["concept"]])
    reproduced = round_trip(folders, pixels)

    model = new_classifier([concept.name for concept in concepts.load()])
    average = Average(model, decay=0.995)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.05, fused=True)
    began, right, seen = time.monotonic(), 0, 0
    rounds = batches(torch.arange(len(pixels)), BATCH, generator)
    for step, rows in zip(range(steps), rounds, strict=False):
        set_rate(optimizer, rate(step, steps, peak=peak))
        again = torch.rand(BATCH, generator=generator)[:, None, None, None] < ROUND_TRIPS
        shown = to_model(torch.where(again, reproduced[rows], pixels[rows]))
        for change in (augmentation.moved, augmentation.worn, augmentation.hidden):
            shown = change(shown, generator)
        scores = model(shown).logits
        F.cross_entropy(scores, labels[rows], label_smoothing=0.1).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        right, seen = right + int((scores.argmax(1) == labels[rows]).sum()), seen + BATCH
        if step % 50 == 0:
            log.info("%d %.0fs accuracy %.3f", step, time.monotonic() - began, right / seen)
            right = seen = 0
        if step % 500 == 499 or step == steps - 1:
            with average.applied():
                model.save_pretrained(folders.classifier)
                judge(model.eval(), folders, pixels, reproduced, labels)
            model.train()
    (folders.classifier / "preprocessor_config.json").write_text(
        json.dumps(PREPROCESSOR, indent=1)
    )


@torch.no_grad()
def accuracy(model: ResNetForImageClassification, pixels: Tensor, labels: Tensor) -> float:
    best = torch.cat([model(to_model(part)).logits.argmax(1) for part in pixels.split(128)])
    return (best == labels).float().mean().item()


def judge(
    model: ResNetForImageClassification,
    folders: Folders,
    pixels: Tensor,
    reproduced: Tensor,
    labels: Tensor,
) -> None:
    """Log and keep the accuracy on what it learnt from and on each foreign set."""
    foreign = load_file(folders.judges)
    scores = {
        "training pictures": accuracy(model, pixels, labels),
        "their reproductions": accuracy(model, reproduced, labels),
    }
    for at, name in enumerate(SetTable.load().judges):
        mine = foreign["set"] == at
        scores[name] = accuracy(model, foreign["pixels"][mine], foreign["concept"][mine])
    log.info("%s", scores)
    (folders.work / "classifier.json").write_text(json.dumps(scores, indent=1))
