"""An erased model for other programs: a diffusers folder, one original file, or a LoRA."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from core.errors import Invalid, ModelExists, UntrustedModel
from core.manifests import Manifest
from core.registry import ModelRegistry


class Format(StrEnum):
    DIFFUSERS = "diffusers"
    SINGLE_FILE = "single-file"
    LORA = "lora"


@dataclass(frozen=True)
class Exported:
    path: Path
    remark: str


def export(
    registry: ModelRegistry, model_id: str, form: Format, out: Path, *, rank: int | None = None
) -> Exported:
    """Write the model `model_id` to `out`, whole or not at all, after checking every file of it.

    Args:
        rank: of a LoRA, at most; None for all that stage 1 has.

    Raises:
        ModelExists: there is something at `out`.
        Invalid, ModelNotFound, UntrustedModel, ModelUnsupported, NotEnoughRoom.
    """
    manifest = registry.get(model_id)
    if manifest.edit is None:
        raise Invalid(f"{model_id} is a base model; export what was erased from it")
    if out.exists():
        raise ModelExists(f"{out} exists; name a path that does not exist yet")
    if form is not Format.DIFFUSERS and out.suffix != ".safetensors":
        raise Invalid(f"--out {out} is to be a .safetensors file for --format {form}")
    folder = registry.path(model_id)
    manifest.check_files(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
        made = Path(place) / out.name
        match form:
            case Format.DIFFUSERS:
                shutil.copytree(folder / "unet", made / "unet")
                shutil.copyfile(folder / "README.md", made / "README.md")
                remark = "put unet/ in the place of the base's own"
            case Format.SINGLE_FILE:
                remark = _write_single_file(_base(registry, manifest), folder, made)
            case Format.LORA:
                remark = _write_lora(_base(registry, manifest), manifest, folder, made, rank)
        made.rename(out)
    return Exported(out, remark)


def _base(registry: ModelRegistry, manifest: Manifest) -> Path:
    assert manifest.edit is not None
    base = registry.get(manifest.edit.base_model)
    if base.content_digest != manifest.edit.base_digest:
        raise UntrustedModel(
            f"model {manifest.id} was made from another {base.id} than the one here"
        )
    base.check_files(registry.path(base.id))
    return registry.path(base.id)


def _write_single_file(base: Path, folder: Path, path: Path) -> str:
    # Not before: it imports torch.
    from diffusion.erasure import FILENAME, Erasure  # noqa: PLC0415
    from diffusion.originals.single_file import write_single_file  # noqa: PLC0415
    from trainer.full_disk import full_disk_named  # noqa: PLC0415

    with full_disk_named(path):
        write_single_file(base, Erasure.load(folder / FILENAME), path)
    return "half precision, original layout, the erasure in its weights"


def _write_lora(base: Path, manifest: Manifest, folder: Path, path: Path, rank: int | None) -> str:
    from diffusion.erasure import FILENAME, Erasure  # noqa: PLC0415
    from diffusion.lora import to_lora  # noqa: PLC0415
    from diffusion.weights import find_weights, open_weights  # noqa: PLC0415
    from trainer.full_disk import full_disk_named  # noqa: PLC0415

    config = json.loads((base / "unet" / "config.json").read_text())
    with open_weights(*find_weights(base / "unet").paths) as weights:
        erasure = Erasure.load(folder / FILENAME)
        lora = to_lora(weights, erasure, config, family=manifest.family, rank=rank)
    with full_disk_named(path):
        lora.save(path)
    left_out = f"; {len(lora.left_out)} changed biases and norms left out" if lora.left_out else ""
    return f"rank {lora.rank}, relative error of the change {lora.error:.2g}{left_out}"
