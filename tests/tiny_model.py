"""The smallest Stable Diffusion models there are: true classes, random weights, 16 x 16 px."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

WIDTH = 24
WIDTH_2 = 32
PROJECTED = 20
SIDE_PX = 16
FAMILIES = ("sd1", "sd2", "sdxl")
START, END = "<|startoftext|>", "<|endoftext|>"
# Whole words; all else is spelled letter by letter, so one word may be many tokens.
WORDS = ["a", "an", "of", "photo", "axe", "pistol", "flower", "dog", "on", "the", "in"]

UNET_OF_FAMILY: dict[str, dict[str, Any]] = {
    "sd1": {"attention_head_dim": 2, "cross_attention_dim": WIDTH},
    "sd2": {
        "attention_head_dim": (2, 4),
        "cross_attention_dim": WIDTH,
        "use_linear_projection": True,
    },
    "sdxl": {
        "attention_head_dim": (2, 4),
        "cross_attention_dim": WIDTH + WIDTH_2,
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": PROJECTED + 6 * 4,
    },
}


def make_tokenizer(pad: str = END) -> CLIPTokenizer:
    """A byte pair encoding that knows `WORDS` and single letters."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        left = word[0]
        for place, letter in enumerate(word[1:], start=1):
            right = f"{letter}</w>" if place == len(word) - 1 else letter
            merges.append((left, right))
            left += right
    vocabulary += dict.fromkeys(left + right for left, right in dict.fromkeys(merges))
    vocabulary += [START, END]
    numbered = {token: number for number, token in enumerate(vocabulary)}
    merges = list(dict.fromkeys(merges))
    return CLIPTokenizer(vocab=numbered, merges=merges, model_max_length=77, pad_token=pad)


def make_model(folder: Path, *, seed: int = 0, family: str = "sd1") -> Path:
    """Write a complete diffusers folder, and return it."""
    # SD 2.x, and the second encoder of SDXL, pad with "!" instead of [EoT].
    tokenizer = make_tokenizer("!" if family == "sd2" else END)
    scheduler: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
    }
    if family != "sdxl":
        scheduler |= {"clip_sample": False, "set_alpha_to_one": False}
    if family == "sd2":
        scheduler |= {"prediction_type": "v_prediction"}
    made_scheduler = (EulerDiscreteScheduler if family == "sdxl" else DDIMScheduler)(**scheduler)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        act = "gelu" if family == "sd2" else "quick_gelu"
        text_encoder = CLIPTextModel(_text_config(tokenizer, WIDTH, hidden_act=act))
        unet = UNet2DConditionModel(
            sample_size=SIDE_PX // 2,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")
            if family != "sdxl"
            else ("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")
            if family != "sdxl"
            else ("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            **UNET_OF_FAMILY[family],
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=SIDE_PX,
            force_upcast=family == "sdxl",
            scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        )
        parts: dict[str, Any] = {
            "tokenizer": tokenizer,
            "text_encoder": text_encoder,
            "unet": unet,
            "vae": vae,
            "scheduler": made_scheduler,
        }
        if family == "sdxl":
            config = _text_config(tokenizer, WIDTH_2, projection_dim=PROJECTED, hidden_act="gelu")
            parts["tokenizer_2"] = make_tokenizer("!")
            parts["text_encoder_2"] = CLIPTextModelWithProjection(config)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline"
        if family == "sdxl"
        else "StableDiffusionPipeline"
    }
    for name, part in parts.items():
        part.save_pretrained(str(folder / name))
        library = "diffusers" if name in {"unet", "vae", "scheduler"} else "transformers"
        index[name] = [library, type(part).__name__.removesuffix("Fast")]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _text_config(tokenizer: CLIPTokenizer, width: int, **fields: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )
