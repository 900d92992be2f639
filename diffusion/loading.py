"""A model folder -> its components, ready to draw: verified, safetensors only, frozen."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.errors import ModelUnsupported
from core.importing import read_family
from core.manifests import Manifest
from diffusion.families import ADDED_CONDITION, PARTS, SIZE_NUMBERS, text_parts
from diffusion.prompts import PromptEncoder, SecondEncoder
from diffusion.weights import find_weights


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
    second: SecondEncoder | None = None
    """Of SDXL."""
    zero_empty: bool = False
    """The model knows the empty prompt as zeros."""

    def prompt_encoder(self) -> PromptEncoder:
        return PromptEncoder(
            self.tokenizer, self.text_encoder, second=self.second, zero_empty=self.zero_empty
        )


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
    family = check_base(folder, manifest)
    tokenizer, text_encoder, second = _load_text(folder, family, device=device, dtype=dtype)
    unet = _part(UNet2DConditionModel, folder / "unet", torch_dtype=dtype)
    # The VAE of SDXL computes numbers that half precision does not hold, and says so.
    upcast = AutoencoderKL.load_config(str(folder / "vae")).get("force_upcast", False)
    vae_dtype = torch.float32 if upcast and dtype is torch.float16 else dtype
    vae = _part(AutoencoderKL, folder / "vae", torch_dtype=vae_dtype)
    return Components(
        family=family,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=_frozen(unet, device),
        vae=_frozen(vae, device),
        scheduler_config=_read(folder / "scheduler" / "scheduler_config.json"),
        second=second,
        zero_empty=_zero_empty(folder, family),
    )


def load_prompt_encoder(
    folder: Path,
    manifest: Manifest | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> PromptEncoder:
    """The text side of a base model alone, checked as `load_base` checks all of it.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    family = check_base(folder, manifest)
    tokenizer, text_encoder, second = _load_text(folder, family, device=device, dtype=dtype)
    return PromptEncoder(
        tokenizer, text_encoder, second=second, zero_empty=_zero_empty(folder, family)
    )


def load_unet(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[UNet2DConditionModel, dict[str, Any]]:
    """The UNet alone of a base model that was checked, and its scheduler's configuration.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    unet = _frozen(_part(UNet2DConditionModel, folder / "unet", torch_dtype=dtype), device)
    return unet, _read(folder / "scheduler" / "scheduler_config.json")


def check_base(folder: Path, manifest: Manifest | None) -> str:
    """The family of a base model whose files, classes and shapes fit; no weight is read.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    if manifest is not None:
        if manifest.kind != "base":
            raise ModelUnsupported(f"model {manifest.id} is erased; load its base, then apply it")
        manifest.check_files(folder)
    family, _ = read_family(folder)
    _check_parts(folder, family)
    _check_fit(folder, family)
    return family


def _load_text(
    folder: Path, family: str, *, device: torch.device | str, dtype: torch.dtype
) -> tuple[CLIPTokenizer, Any, SecondEncoder | None]:
    first = _frozen(_part(CLIPTextModel, folder / "text_encoder", dtype=dtype), device)
    second = None
    if "text_encoder_2" in PARTS[family]:
        encoder = _part(CLIPTextModelWithProjection, folder / "text_encoder_2", dtype=dtype)
        second = SecondEncoder(_tokenizer(folder / "tokenizer_2"), _frozen(encoder, device))
    return _tokenizer(folder / "tokenizer"), first, second


def _tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def _part(kind: Any, folder: Path, **dtype: torch.dtype) -> Any:
    variant = find_weights(folder).variant
    name = f"{folder.parent.name}/{folder.name}"
    try:
        part, told = kind.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            output_loading_info=True,
            **dtype,
        )
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise ModelUnsupported(f"{name}: its weights do not fit its config: {error}") from error
    # A part that is not in the file would be made up at random, with a warning.
    if missing := sorted(told["missing_keys"]):
        raise ModelUnsupported(f"{name}: its weights lack {missing[0]}, and {len(missing)} in all")
    return part


def _zero_empty(folder: Path, family: str) -> bool:
    """diffusers does so for SDXL unless the model says otherwise."""
    index = _read(folder / "model_index.json")
    return family == "sdxl" and bool(index.get("force_zeros_for_empty_prompt", True))


def _check_parts(folder: Path, family: str) -> None:
    index = _read(folder / "model_index.json")
    for part, classes in PARTS[family].items():
        _, found = index.get(part) or (None, None)
        if found not in classes:
            wanted = " or ".join(sorted(classes))
            raise ModelUnsupported(
                f"{folder.name}: its {part} is {found or 'missing'}, not {wanted}"
            )
        if not (folder / part).is_dir():
            raise ModelUnsupported(f"{folder.name}: the folder {part}/ is missing")
        if not part.startswith("tokenizer"):
            find_weights(folder / part)


def _check_fit(folder: Path, family: str) -> None:
    unet, vae = (_read(folder / part / "config.json") for part in ("unet", "vae"))
    texts = [_read(folder / part / "config.json") for part in text_parts(family)]
    width = sum(text.get("hidden_size", 512) for text in texts)
    if unet.get("cross_attention_dim") != width:
        raise ModelUnsupported(
            f"{folder.name}: its UNet reads text of width {unet.get('cross_attention_dim')}, "
            f"its text encoder{'s write' if len(texts) > 1 else ' writes'} {width}"
        )
    channels = tuple(
        config.get(name, 4)
        for config, name in (
            (unet, "in_channels"),
            (unet, "out_channels"),
            (vae, "latent_channels"),
        )
    )
    if len(set(channels)) > 1:
        raise ModelUnsupported(
            f"{folder.name}: UNet in, UNet out and VAE have {channels} channels; a text-to-image "
            "model has as many of each (inpainting and depth models are not hosted)"
        )
    if vae.get("latents_mean") or vae.get("latents_std"):
        raise ModelUnsupported(f"{folder.name}: its VAE shifts latents, which is not supported")
    for option in ("encoder_hid_dim", "class_embed_type", "time_cond_proj_dim"):
        if unet.get(option) is not None:
            raise ModelUnsupported(
                f"{folder.name}: its UNet takes a condition ({option}) besides text"
            )
    added = unet.get("addition_embed_type")
    if added != ADDED_CONDITION[family]:
        raise ModelUnsupported(
            f"{folder.name}: its UNet takes a condition (addition_embed_type {added}) that "
            f"{family} models do not have"
        )
    if family == "sdxl":
        wanted = texts[1].get("projection_dim", 512)
        wanted += SIZE_NUMBERS * unet.get("addition_time_embed_dim", 0)
        reads = unet.get("projection_class_embeddings_input_dim")
        if reads != wanted:
            raise ModelUnsupported(
                f"{folder.name}: its UNet reads {reads} numbers of pooled text and size, its "
                f"second text encoder and six of size make {wanted} (refiners are not hosted)"
            )


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
