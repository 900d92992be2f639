"""The loads that `benchmarks/gate.py` compares: of a base model, and of an erased one."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from core.checked_stream import LeftToCheck
from core.edits import Edit
from core.importing import import_base, read_family
from core.making import describe
from core.manifests import Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer, Verifier
from core.specs import Concept, TextualOptions
from diffusion.erasure import FILENAME, Erasure, write_unet
from diffusion.loading import load_base
from worker.shelf import Shelf
from worker.variant import Base, Variant

WAYS = ("from_pretrained", "unchecked", "checked", "checked at once")
"""To load a base: as others do, as a worker would if it trusted the disk, as a worker does until
drawing can begin, and with every check made before that, as whoever else loads a model does."""


def base_load(way: str, dtype: torch.dtype, folder: Path) -> Callable[[], tuple[Any, LeftToCheck]]:
    """One of `WAYS` to load a base model; it returns what is left to check, too."""
    manifest = None if way in WAYS[:2] else _manifest(folder)

    def load() -> tuple[Any, LeftToCheck]:
        left = LeftToCheck()
        if way == "from_pretrained":
            return _usual(folder, dtype), left
        later = left if way == "checked" else None
        return load_base(folder, manifest, dtype=dtype, later=later), left

    return load


def _usual(folder: Path, dtype: torch.dtype) -> Any:
    made = [
        UNet2DConditionModel.from_pretrained(str(folder / "unet"), torch_dtype=dtype),
        AutoencoderKL.from_pretrained(str(folder / "vae"), torch_dtype=dtype),
        CLIPTextModel.from_pretrained(str(folder / "text_encoder"), dtype=dtype),
    ]
    for module in made:
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    return made, CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))


def _manifest(folder: Path) -> Manifest:
    family, drawing = read_family(folder)
    return describe(folder, model_id="m", family=family, drawing=drawing, code_version="bench")


def unchecked_erased(registry: ModelRegistry, dtype: torch.dtype) -> dict[str, float]:
    """What a worker makes of a base and an erasure, from files that nobody looks through."""
    manifest, device = registry.get("erased"), torch.device("cpu")
    began = time.perf_counter()
    components = load_base(registry.path("base"), None, dtype=dtype)
    base = Base(registry.get("base"), components, device)
    based = time.perf_counter()
    erasure = Erasure.load(registry.path("erased") / FILENAME)
    variant = Variant(manifest, base, base.denoiser, erasure.maps_on(device))
    done = time.perf_counter()
    del variant
    return {"unchecked, with its base": done - began, "unchecked": done - based}


def checked_erased_alone(registry: ModelRegistry, dtype: torch.dtype) -> dict[str, float]:
    """By a worker that has neither the model nor its base."""
    shelf = _shelf(registry, dtype)
    began = time.perf_counter()
    variant = shelf.variant("erased")
    taken = time.perf_counter() - began
    variant.late_check.wait()
    return {"checked, with its base": taken}


def checked_erased(registry: ModelRegistry, dtype: torch.dtype) -> dict[str, float]:
    """By a worker that has the base."""
    shelf = _shelf(registry, dtype)
    shelf.variant("base").late_check.wait()
    began = time.perf_counter()
    variant = shelf.variant("erased")
    done = time.perf_counter()
    variant.late_check.wait()
    end = time.perf_counter()
    return {"checked": done - began, "checked, and the rest of its files": end - began}


def _shelf(registry: ModelRegistry, dtype: torch.dtype) -> Shelf:
    return Shelf(registry, device=torch.device("cpu"), dtype=dtype)


def make_erased(folder: Path, place: Path) -> ModelRegistry:
    """An installation with the base in `folder`, and a model erased by a text map of no effect."""
    signer = Signer.load_or_create(place / "keys")
    registry = ModelRegistry(
        place / "models",
        Verifier.load(place / "keys"),
        serve_unerased_base=True,
        default_model="erased",
    )
    base = import_base(folder, "base", registry, signer)
    config = json.loads((folder / "unet" / "config.json").read_text())
    erasure = Erasure(torch.eye(config["cross_attention_dim"]))
    made = registry.making.begin("erased")
    erasure.save(made / FILENAME)
    write_unet(registry.path("base") / "unet", erasure, made / "unet")
    edit = Edit(
        base_model=base.id,
        base_digest=base.content_digest,
        method="trce",
        concepts=(Concept(name="pistol", replacement="flower"),),
        textual=TextualOptions(),
        seed=0,
        seconds=1.0,
    )
    manifest = describe(
        made,
        model_id="erased",
        family=base.family,
        drawing=base.drawing,
        code_version="bench",
        edit=edit,
        status=ModelStatus.SERVING,
    )
    Registrar(registry).add(manifest, made, signer)
    return registry
