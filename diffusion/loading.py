"""A model folder -> its components, ready to draw: verified, safetensors only, frozen."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from core.errors import ModelUnsupported, UntrustedModel
from core.importing import read_family
from core.manifests import Manifest

# The classes of Stable Diffusion 1.x, and the file that holds the weights of each part.
PARTS = {
    "tokenizer": {"CLIPTokenizer", "CLIPTokenizerFast"},
    "text_encoder": {"CLIPTextModel"},
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL"},
}
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


@dataclass(frozen=True)
class Components:
    """The parts of one model, in eval mode, none of them trainable."""

    family: str
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    """The model's own `scheduler_config.json`; `_class_name` says which scheduler it is for."""


def load_base(
    folder: Path,
    manifest: Manifest | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Components:
    """Load a diffusers folder, after checking it against its manifest if there is one.

    The signature of the manifest is the registry's business; here the files are held against it.

    Raises:
        UntrustedModel: a file is not as the manifest says, or weights are not safetensors.
        ModelUnsupported: another kind of model, a part is missing, or parts do not fit.
    """
    if manifest is not None:
        if manifest.kind != "base":
            raise ModelUnsupported(f"model {manifest.id} is erased; load its base, then apply it")
        manifest.check_files(folder)
    family, _ = read_family(folder)
    _check_parts(folder)

    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    text_encoder = CLIPTextModel.from_pretrained(
        str(folder / "text_encoder"), dtype=dtype, use_safetensors=True, local_files_only=True
    )
    unet, vae = (
        part.from_pretrained(
            str(folder / name), torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
        for name, part in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL))
    )
    _check_fit(folder.name, text_encoder, unet, vae)
    return Components(
        family=family,
        tokenizer=tokenizer,
        text_encoder=_frozen(text_encoder, device),
        unet=_frozen(unet, device),
        vae=_frozen(vae, device),
        scheduler_config=_read(folder / "scheduler" / "scheduler_config.json"),
    )


def _check_parts(folder: Path) -> None:
    index = _read(folder / "model_index.json")
    for part, classes in PARTS.items():
        _, found = index.get(part) or (None, None)
        if found not in classes:
            wanted = " or ".join(sorted(classes))
            raise ModelUnsupported(
                f"{folder.name}: its {part} is {found or 'missing'}, not {wanted}"
            )
        if not (folder / part).is_dir():
            raise ModelUnsupported(f"{folder.name}: the folder {part}/ is missing")
    for part, weights in WEIGHTS.items():
        if not (folder / part / weights).is_file():
            raise UntrustedModel(
                f"{folder.name}: {part}/{weights} is missing; weights are loaded from safetensors "
                "files only, since other formats can run code"
            )


def _check_fit(name: str, text_encoder: Any, unet: Any, vae: Any) -> None:
    width = text_encoder.config.hidden_size
    if unet.config.cross_attention_dim != width:
        raise ModelUnsupported(
            f"{name}: its UNet reads text of width {unet.config.cross_attention_dim}, "
            f"its text encoder writes {width}"
        )
    channels = (unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels)
    if len(set(channels)) > 1:
        raise ModelUnsupported(
            f"{name}: UNet in, UNet out and VAE have {channels} channels; a text-to-image model "
            "has as many of each (inpainting and depth models are not hosted)"
        )
    for option in (
        "encoder_hid_dim",
        "addition_embed_type",
        "class_embed_type",
        "time_cond_proj_dim",
    ):
        if unet.config.get(option) is not None:
            raise ModelUnsupported(f"{name}: its UNet takes a condition ({option}) besides text")


def _frozen(module: Any, device: torch.device | str) -> Any:
    assert isinstance(module, nn.Module)
    # Loaded weights may be a view of the file; what is served must not change with it.
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.to(device, copy=True)
    return module.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelUnsupported(f"{path.parent.name}/{path.name} is missing or not JSON") from error
    if not isinstance(document, dict):
        raise ModelUnsupported(f"{path.parent.name}/{path.name} does not hold a JSON object")
    return document
