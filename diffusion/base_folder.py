"""What a base model's folder says of itself: its family, its parts, and whether they fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ModelUnsupported
from core.importing import family_of
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.schedulers import SCHEDULER_CONFIG, check_own
from core.weight_names import weight_names
from diffusion.families import ADDED_CONDITION, PARTS, SIZE_NUMBERS, text_parts
from diffusion.schedulers import try_own


@dataclass(frozen=True)
class BaseFolder:
    """A base model whose classes and shapes fit; no weight of it has been read."""

    files: ModelFiles
    family: str
    index: Mapping[str, Any]
    """Its `model_index.json`."""
    configs: Mapping[str, dict[str, Any]]
    """Part -> its `config.json`."""
    scheduler_config: dict[str, Any]

    @property
    def zero_empty(self) -> bool:
        """Whether the empty prompt is zeros: so for SDXL, unless the index says otherwise."""
        return self.family == "sdxl" and bool(self.index.get("force_zeros_for_empty_prompt", True))


def open_base(folder: Path, manifest: Manifest | None) -> BaseFolder:
    """Read what says what it is, each file as the manifest says, if there is one.

    Raises:
        UntrustedModel: a file is not as the manifest says, or weights are not safetensors.
        ModelUnsupported: another kind of model, a part is missing, or parts do not fit.
    """
    if manifest is not None and manifest.kind != "base":
        raise ModelUnsupported(f"model {manifest.id} is erased; load its base, then apply it")
    files = ModelFiles(folder, manifest)
    index = files.read_json("model_index.json")
    configs = {part: files.read_json(f"{part}/config.json") for part in ("unet", "vae")}
    family, _ = family_of(folder.name, index=index, **configs)
    _check_parts(files, index, family)
    configs |= {part: files.read_json(f"{part}/config.json") for part in text_parts(family)}
    _check_fit(folder, family, configs)
    scheduler = files.read_json(SCHEDULER_CONFIG)
    check_own(folder.name, scheduler)
    try_own(folder.name, scheduler)
    return BaseFolder(files, family, index, configs, scheduler)


def _check_parts(files: ModelFiles, index: Mapping[str, Any], family: str) -> None:
    name = files.folder.name
    for part, classes in PARTS[family].items():
        _, found = index.get(part) or (None, None)
        if found not in classes:
            wanted = " or ".join(sorted(classes))
            raise ModelUnsupported(f"{name}: its {part} is {found or 'missing'}, not {wanted}")
        if not files.below(part):
            raise ModelUnsupported(f"{name}: the folder {part}/ is missing")
        if not part.startswith("tokenizer"):
            weight_names(files, part)


def _check_fit(folder: Path, family: str, configs: Mapping[str, dict[str, Any]]) -> None:
    unet, vae = configs["unet"], configs["vae"]
    texts = [configs[part] for part in text_parts(family)]
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
