"""Bring a base model into the registry: copy a diffusers folder, describe it, sign it.

Needs no torch: everything a manifest says stands in the folder's JSON files.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.copying import copy_model, told
from core.errors import ModelExists, ModelUnsupported
from core.making import describe
from core.manifests import Drawing, Manifest, ModelStatus
from core.model_files import MAX_WHOLE_BYTES, ModelFiles
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.schedulers import SCHEDULER_CONFIG, check_own
from core.signing import Signer
from core.specs import ModelId
from core.version import CODE_VERSION
from core.weight_names import weight_names

IMPORT = "import-"
MAX_PX_OVER_NATIVE = 2
PIPELINES = {"StableDiffusionPipeline": None, "StableDiffusionXLPipeline": "sdxl"}
"""Pipeline class -> family, where the class alone decides."""

_model_id: TypeAdapter[str] = TypeAdapter(ModelId)


def import_base(source: Path, model_id: str, registry: ModelRegistry, signer: Signer) -> Manifest:
    """Copy the diffusers folder `source` into the registry as a base model; all of it, or nothing.

    Raises:
        ModelUnsupported: not a Stable Diffusion folder this code can serve, or a bad id.
        UntrustedModel: a file is not what its name says, or weights are not safetensors.
        NotEnoughRoom.
        ModelExists: the id is taken by other weights.
    """
    try:
        _model_id.validate_python(model_id)
    except ValidationError as error:
        raise ModelUnsupported(
            f"{model_id!r} is no model id; use lower-case letters, digits, '.', '_' and '-'"
        ) from error
    read_family(source)
    if registry.path(model_id).exists() and registry.get(model_id).kind != "base":
        raise ModelExists(f"{model_id} is an erased model; import the base under another id")
    with told(source.name):
        folder = registry.making.begin(f"{IMPORT}{model_id}")
    try:
        copy_model(source, folder)
        # Once more, of the copy: the source may have changed since.
        family, drawing = read_family(folder)
        files = ModelFiles(folder, None)
        check_own(source.name, files.read_json(SCHEDULER_CONFIG))
        for part in _parts(files):
            weight_names(files, part)
        with told(source.name):
            manifest = describe(
                folder,
                model_id=model_id,
                family=family,
                drawing=drawing,
                code_version=CODE_VERSION,
                status=ModelStatus.SERVING,
            )
            return Registrar(registry).add(manifest, folder, signer)
    finally:
        registry.making.clear(folder)


def _parts(files: ModelFiles) -> list[str]:
    """Those with weights, without which nothing can be drawn."""
    index = files.read_json("model_index.json")
    texts = [part for part in index if part.startswith("text_encoder") and _is_there(index[part])]
    return ["unet", "vae", *texts]


def _is_there(told: object) -> bool:
    """diffusers writes [null, null] for a part that a pipeline does without."""
    return isinstance(told, list) and any(told)


def read_family(source: Path) -> tuple[str, Drawing]:
    """What kind of Stable Diffusion a folder holds, and the sizes it draws.

    Raises:
        ModelUnsupported.
    """
    return family_of(
        source.name,
        index=_read(source, "model_index.json"),
        unet=_read(source, "unet/config.json"),
        vae=_read(source, "vae/config.json"),
    )


def family_of(
    name: str, *, index: dict[str, Any], unet: dict[str, Any], vae: dict[str, Any]
) -> tuple[str, Drawing]:
    """The same from what `model_index.json` and the configs of UNet and VAE say.

    Raises:
        ModelUnsupported.
    """
    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        raise ModelUnsupported(
            f"{name} is a {pipeline or 'folder without a pipeline class'}; "
            f"this version hosts {' and '.join(PIPELINES)} models (Stable Diffusion 1.x, 2.x, XL)"
        )
    try:
        vae_factor = 2 ** (len(vae["block_out_channels"]) - 1)
        unet_factor = 2 ** (len(unet["block_out_channels"]) - 1)
        native = unet["sample_size"] * vae_factor
    except (KeyError, TypeError) as error:
        raise ModelUnsupported(f"{name}: its UNet or VAE config lacks {error}") from error
    # SD 2.x differs from 1.x in its text encoder, and in how attention layers are built.
    family = PIPELINES[pipeline] or ("sd2" if unet.get("use_linear_projection") else "sd1")
    return family, Drawing(
        native_px=native,
        multiple_px=vae_factor * unet_factor,
        max_px=native * MAX_PX_OVER_NATIVE,
    )


def _read(source: Path, name: str) -> dict[str, Any]:
    try:
        with (source / name).open("rb") as file:
            document = json.loads(file.read(MAX_WHOLE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnsupported(
            f"{source} is not a diffusers folder: {name} is missing or not JSON"
        ) from error
    if not isinstance(document, dict):
        raise ModelUnsupported(f"{source}: {name} does not hold a JSON object")
    return document
