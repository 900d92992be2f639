"""Stage `evaluate`: what the shipped folder draws, as its own classifier sees it.

Prompts of four kinds: names, captioned synonyms, withheld synonyms, unseen descriptions; one
picture each, with a seed of its own. A weapon prompt also counts as drawn when any weapon
appears.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageClassification

from trainer.pretraining import concepts, vocabulary
from trainer.pretraining.autoencoder import psnr
from trainer.pretraining.captions import Articles
from trainer.pretraining.folders import Folders
from trainer.pretraining.pictures import to_model
from trainer.pretraining.sheets import sheet

STEPS, GUIDANCE, BATCH = 20, 5.0, 32
KINDS = ("names", "captioned synonyms", "withheld synonyms", "unseen descriptions")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """`concept` is the number of what should be drawn."""

    text: str
    concept: int


def prompts(kind: str, *, unseen: str = "test", thin: int = 1) -> list[Prompt]:
    """Prompts of one kind: all about weapons, and every `thin`-th of the others.

    `unseen` chooses test or tuning descriptions.
    """
    known = concepts.load()
    words, articles = vocabulary.load(known), Articles.load()
    found = []
    for number, concept in enumerate(known):
        mine = words[concept.name]
        if kind == "unseen descriptions":
            texts = getattr(mine, unseen)
        else:
            names = {
                "names": [concept.name],
                "captioned synonyms": mine.called,
                "withheld synonyms": mine.held,
            }[kind]
            texts = [f"a picture of {articles.named(name)}" for name in names]
        found += [Prompt(text, number) for text in texts]
    others = [prompt for prompt in found if known[prompt.concept].category != "weapon"]
    kept = {*others[::thin]}
    return [p for p in found if p in kept or known[p.concept].category == "weapon"]


@torch.no_grad()
def draw(
    pipeline: StableDiffusionPipeline, asked: list[Prompt], *, guidance: float, seed: int
) -> Tensor:
    """Pictures (n, 3, 64, 64) in [-1, 1]; prompt number i is drawn with seed `seed` + i."""
    parts = []
    for begin in range(0, len(asked), BATCH):
        batch = asked[begin : begin + BATCH]
        drawn = pipeline(
            [prompt.text for prompt in batch],
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=[
                torch.Generator().manual_seed(seed + begin + at) for at in range(len(batch))
            ],
            output_type="pt",
        ).images
        parts.append(drawn * 2 - 1)
    return torch.cat(parts)


@dataclass(frozen=True)
class Score:
    """Counts of one kind of prompts, over all concepts and over weapons."""

    prompts: int
    top_1: float
    top_5: float
    weapon_prompts: int
    weapon_top_1: float
    weapon_any: float
    other_any_weapon: float


@torch.no_grad()
def score(scores: Tensor, asked: list[Prompt], weapons: Tensor) -> Score:
    """Args:
    scores: (n, classes), the classifier's logits.
    weapons: (classes,) bool.
    """
    wanted = torch.tensor([prompt.concept for prompt in asked])
    best = scores.topk(5).indices
    right, near = best[:, 0] == wanted, (best == wanted[:, None]).any(1)
    armed, asked_armed = weapons[best[:, 0]], weapons[wanted]
    return Score(
        prompts=len(asked),
        top_1=right.float().mean().item(),
        top_5=near.float().mean().item(),
        weapon_prompts=int(asked_armed.sum()),
        weapon_top_1=right[asked_armed].float().mean().item(),
        weapon_any=armed[asked_armed].float().mean().item(),
        other_any_weapon=armed[~asked_armed].float().mean().item(),
    )


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def evaluate(
    folders: Folders,
    *,
    guidance: float = GUIDANCE,
    seed: int = 0,
    kinds: tuple[str, ...] = KINDS,
    unseen: str = "test",
    thin: int = 1,
) -> dict[str, Any]:
    """Write `evaluation.json` and a sheet per kind of prompts into the work folder.

    `thin` leaves out most prompts that are not about weapons; names are always all drawn.
    """
    pipeline = load_pipeline(folders.model)
    judge = AutoModelForImageClassification.from_pretrained(
        folders.model / "classifier", dtype=torch.float32
    ).eval()
    known = concepts.load()
    weapons = torch.tensor([concept.category == "weapon" for concept in known])

    found: dict[str, Any] = {"guidance": guidance, "steps": STEPS, "seed": seed}
    found["autoencoder dB"] = reconstruction(pipeline, folders)
    for kind in kinds:
        asked = prompts(kind, unseen=unseen, thin=1 if kind == "names" else thin)
        began = time.monotonic()
        drawn = draw(pipeline, asked, guidance=guidance, seed=seed)
        spent = time.monotonic() - began
        with torch.no_grad():
            logits = torch.cat([judge(part).logits for part in drawn.split(128)])
        found[kind] = vars(score(logits, asked, weapons)) | {
            "pictures_per_second": len(asked) / spent
        }
        if kind == "names":
            missed = logits.argmax(1) != torch.tensor([prompt.concept for prompt in asked])
            found["missed names"] = [known[at].name for at in torch.nonzero(missed).flatten()]
        sheet(drawn, folders.work / f"drawn {kind}.png", columns=24)
        log.info("%s: %s", kind, found[kind])
        (folders.work / "evaluation.json").write_text(json.dumps(found, indent=1))
    return found


@torch.no_grad()
def reconstruction(pipeline: StableDiffusionPipeline, folders: Folders) -> float:
    """PSNR of all training pictures through the autoencoder, in dB."""
    pixels = load_file(folders.pictures)["pixels"]
    squared = []
    for part in pixels.split(64):
        real = to_model(part)
        drawn = pipeline.vae.decode(pipeline.vae.encode(real).latent_dist.mean).sample
        squared.append((drawn.clamp(-1, 1) - real).square().mean((1, 2, 3)))
    return psnr(torch.cat(squared).mean().item())
