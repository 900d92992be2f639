"""Models of the size of Stable Diffusion 1.5, randomly initialised, in half precision."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.serving.workload import MODEL

TEXT_WIDTH = 768
SPREAD = 0.02


def unet() -> UNet2DConditionModel:
    """860 million parameters; what the config does not say is diffusers' default, as there."""
    return _random(UNet2DConditionModel, cross_attention_dim=TEXT_WIDTH, sample_size=64)


def erased_tensors(parameters: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """New values for all that both stages of TRCE may change: 128 tensors, 162 MB."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.empty_like(tensor).normal_(std=SPREAD, generator=generator)
        for name, tensor in parameters.items()
        if ".attn1." in name or (".attn2.to_" in name and "to_out" not in name)
    }


def write_pipeline(folder: Path) -> None:
    """A diffusers folder with the shipped model's tokenizer."""
    text = CLIPTextConfig(
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        vocab_size=49408,
    )
    blocks = 4
    StableDiffusionPipeline(
        vae=_random(
            AutoencoderKL,
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            layers_per_block=2,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(text).half(),
        tokenizer=CLIPTokenizer.from_pretrained(MODEL / "tokenizer"),
        unet=unet(),
        scheduler=DDIMScheduler.from_pretrained(MODEL / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def _random(kind: Any, **config: Any) -> Any:
    """Without the initialisation of each layer, which takes minutes at this size."""
    with torch.device("meta"):
        module: nn.Module = kind(**config).half()
    module = module.to_empty(device="cpu").requires_grad_(False).eval()
    for parameter in module.parameters():
        parameter.normal_(std=SPREAD)
    return module
