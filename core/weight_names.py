"""Which files hold the weights of a part of a diffusers folder."""

from core.errors import ModelUnsupported, UntrustedModel
from core.model_files import ModelFiles

VARIANTS = (None, "fp16")
"""Full precision first; many folders hold half precision only, under a name that says so."""


def weight_names(files: ModelFiles, part: str) -> tuple[str, ...]:
    """The same among a model's files, by their names.

    Raises:
        UntrustedModel: there are none, or a shard is missing.
    """
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    for variant in VARIANTS:
        middle = f".{variant}" if variant else ""
        if (whole := f"{part}/{stem}{middle}.safetensors") in files:
            return (whole,)
        if (index := f"{part}/{stem}.safetensors.index{middle}.json") in files:
            return _shards(files, part, index)
    raise UntrustedModel(
        f"{files.folder.name}: {part}/{stem}.safetensors is missing; weights are loaded "
        "from safetensors files only, since other formats can run code"
    )


def _shards(files: ModelFiles, part: str, index: str) -> tuple[str, ...]:
    try:
        found = sorted(set(files.read_json(index)["weight_map"].values()))
        names = tuple(f"{part}/{name}" for name in found)
    except (ModelUnsupported, KeyError, TypeError, AttributeError) as error:
        raise UntrustedModel(f"{index} is no index of shards") from error
    for name in names:
        if name.count("/") > 1 or name not in files:
            raise UntrustedModel(f"{name} is missing")
    return names
