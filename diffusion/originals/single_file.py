"""A whole model as one `.safetensors` file in the original layout, and back.

The file has neither tokenizer nor configs. Of models of the published sizes they are known
(`diffusion.originals.architectures`); others need a diffusers folder of the same architecture.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from core.errors import ModelUnsupported
from core.importing import read_family
from diffusion.erasure import Erasure, erased_entries
from diffusion.families import text_parts
from diffusion.originals.architectures import Prediction, family_of, statement, write_settings
from diffusion.originals.rules import Rule
from diffusion.originals.text import text_rules
from diffusion.originals.unet import unet_rules
from diffusion.originals.vae import vae_rules
from diffusion.weights import Entry, WeightReader, find_weights, open_weights, write_weights

SETTINGS = {".json", ".txt", ".model"}


def write_single_file(
    base: Path, erasure: Erasure, path: Path, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write the base model in the folder `base`, with `erasure` baked in, as one file.

    The file says what its UNet predicts, which programs and our own import cannot tell otherwise.

    Raises:
        ModelUnsupported: the erasure is for another UNet, or a weight does not fit into `dtype`.
        UntrustedModel: the base's weights cannot be read.
    """
    family, _ = read_family(base)
    entries: dict[str, Entry] = {}
    parts = ["unet", "vae", *text_parts(family)]
    with (
        open_weights(*find_weights(base / "unet").paths) as unet,
        open_weights(*find_weights(base / "vae").paths) as vae,
        open_weights(*find_weights(base / "text_encoder").paths) as text,
        open_weights(*_optional(base, "text_encoder_2", parts)) as text_2,
    ):
        readers = {"unet": unet, "vae": vae, "text_encoder": text, "text_encoder_2": text_2}
        for part in parts:
            reader = readers[part]
            made = (
                erased_entries(reader, erasure, dtype)
                if part == "unet"
                else {name: _entry(reader, name, dtype) for name in reader.names}
            )
            rules = _rules(reader.names, base / part, family)
            entries |= {rule.key: _original(rule, made) for rule in rules}
        said, flags = statement(_scheduler(base))
        for name in flags:
            entries[name] = Entry(dtype, (0,), lambda: torch.empty(0, dtype=dtype))
        write_weights(path, entries, {"format": "pt", **said})


def unpack_single_file(
    path: Path, like: Path | None, folder: Path, *, prediction: Prediction | None = None
) -> None:
    """Write the model in the file `path` as a diffusers folder.

    Args:
        like: the folder that settings are taken from; None: those of the published model of the
            file's family.
        prediction: what the UNet predicts, where `like` is None and the file does not say.

    Raises:
        ModelUnsupported: it is of another architecture, a part is missing, or nobody says what an
            SD 2.x predicts.
        UntrustedModel: it is no safetensors file.
    """
    if like is not None:
        _unpack(path, like, folder)
        return
    with open_weights(path) as weights:
        names = set(weights.names)
    with tempfile.TemporaryDirectory(prefix="trce-settings-") as settings:
        write_settings(Path(settings), names, _metadata(path), prediction=prediction)
        try:
            _unpack(path, Path(settings), folder)
        except ModelUnsupported as error:
            raise ModelUnsupported(
                f"{error}; this is not the published Stable Diffusion of its family: name a "
                "diffusers folder of the same architecture with --like"
            ) from error


def _unpack(path: Path, like: Path, folder: Path) -> None:
    with open_weights(path) as weights:
        names = set(weights.names)
        family, found = read_family(like)[0], family_of(names)
        if family != found:
            raise ModelUnsupported(
                f"{path.name} is a model of the family {found}, and {like.name} of {family}"
            )
        for source in sorted(like.rglob("*")):
            target = folder / source.relative_to(like)
            index = source.name.endswith(".index.json") or source.name == "manifest.json"
            if source.is_file() and source.suffix in SETTINGS and not index:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        for part in ("unet", "vae", *text_parts(family)):
            stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
            shapes = _shapes(like / part)
            entries: dict[str, Entry] = {}
            for rule in _rules(list(shapes), like / part, family):
                entries |= _parts_of(rule, weights, shapes, path.name)
            write_weights(folder / part / f"{stem}.safetensors", entries, {"format": "pt"})


def _metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself, beside its tensors."""
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def _rules(names: list[str], folder: Path, family: str) -> list[Rule]:
    match folder.name:
        case "unet":
            return unet_rules(names, _config(folder))
        case "vae":
            return vae_rules(names, _config(folder))
        case part:
            return text_rules(names, family, part=part)


def _entry(reader: WeightReader, name: str, dtype: torch.dtype) -> Entry:
    def make() -> Tensor:
        tensor = reader.tensor(name).to(dtype)
        if not bool(tensor.isfinite().all()):
            raise ModelUnsupported(f"{name} is too large for {dtype}")
        return tensor

    return Entry(dtype, reader.shape(name), make)


def _original(rule: Rule, made: Mapping[str, Entry]) -> Entry:
    sources = [made[part] for part in rule.parts]
    return Entry(
        sources[0].dtype,
        rule.original_shape([source.shape for source in sources]),
        lambda: rule.to_original([source.make() for source in sources]),
    )


def _parts_of(
    rule: Rule, weights: WeightReader, shapes: Mapping[str, tuple[int, ...]], file: str
) -> dict[str, Entry]:
    wanted = rule.original_shape([shapes[part] for part in rule.parts])
    if rule.key not in weights:
        raise ModelUnsupported(f"{file}: {rule.key} is missing")
    found = weights.shape(rule.key)
    if torch.Size(found).numel() != torch.Size(wanted).numel() or found[0] != wanted[0]:
        raise ModelUnsupported(f"{file}: {rule.key} has the shape {found}, not {wanted}")

    def make(place: int) -> Tensor:
        return rule.from_original(weights.tensor(rule.key))[place]

    dtype = weights.dtype(rule.key)
    return {
        part: Entry(dtype, shapes[part], partial(make, place))
        for place, part in enumerate(rule.parts)
    }


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The parameters of the part whose config is in `folder`, none of them in memory."""
    config = _config(folder)
    with torch.device("meta"):
        match folder.name:
            case "unet":
                module: Any = UNet2DConditionModel.from_config(config)
            case "vae":
                module = AutoencoderKL.from_config(config)
            case "text_encoder":
                module = CLIPTextModel(CLIPTextConfig(**config))
            case _:
                module = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    return {name: tuple(one.shape) for name, one in module.named_parameters()}


def _optional(base: Path, part: str, parts: list[str]) -> tuple[Path, ...]:
    return find_weights(base / part).paths if part in parts else ()


def _scheduler(base: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
    return config


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config
