"""Stage `assemble`: one folder that `StableDiffusionPipeline.from_pretrained` loads."""

import json
import logging
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.pretraining import catalogue
from trainer.pretraining.denoiser import new_scheduler
from trainer.pretraining.folders import Folders

LARGEST = 40 * 1024 * 1024
"""Bytes that the folder may take: it lives in the repository."""

log = logging.getLogger(__name__)


def assemble(folders: Folders) -> None:
    """Write `models/emoji` from the stages' results; weights are stored in float16.

    Raises:
        ValueError: the folder has become too large.
    """
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folders.autoencoder),
        text_encoder=CLIPTextModel.from_pretrained(folders.text_encoder),
        tokenizer=CLIPTokenizer.from_pretrained(folders.tokenizer),
        unet=UNet2DConditionModel.from_pretrained(folders.unet),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folders.model, safe_serialization=True)
    for judge in (folders.image_encoder, folders.classifier):
        if judge.exists():
            shutil.copytree(judge, folders.model / judge.name, dirs_exist_ok=True)
            _halve(folders.model / judge.name / "model.safetensors")
    for part in ("text_encoder", "image_encoder", "classifier"):
        _load_in_full(folders.model / part / "config.json")
    catalogue.write(folders)

    size = sum(path.stat().st_size for path in folders.model.rglob("*") if path.is_file())
    log.info("%s takes %.1f MB", folders.model, size / 1e6)
    if size > LARGEST:
        raise ValueError(f"{folders.model} takes {size} bytes, more than {LARGEST}")


def _load_in_full(config: Path) -> None:
    """Let transformers load float16 weights as float32, as diffusers does by itself.

    A plain `from_pretrained` would otherwise mix the two types in one pipeline.
    """
    if config.exists():
        said = json.loads(config.read_text()) | {"dtype": "float32"}
        config.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def _halve(path: Path) -> None:
    """Store the floating-point tensors of a file in float16; counters stay as they are."""
    tensors = load_file(path)
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    save_file(halved, path, metadata={"format": "pt"})
