"""A base model that comes as one file."""

from pathlib import Path

from core.copying import WEIGHTS, check_content, told
from core.errors import Invalid, UntrustedModel
from core.importing import import_base
from core.manifests import Manifest
from core.registry import ModelRegistry
from core.signing import Signer


def import_file(
    source: Path, model_id: str, registry: ModelRegistry, signer: Signer, *, like: str | None
) -> Manifest:
    """Unpack a `.safetensors` file in the original layout into the registry as a base model.

    Args:
        like: a base model's id or a diffusers folder of the same architecture.

    Raises:
        Invalid: `like` is missing, or is neither.
        ModelUnsupported, UntrustedModel, NotEnoughRoom, ModelExists, ModelNotFound.
    """
    if like is None:
        raise Invalid(
            f"{source.name} holds weights only; name a model of the same architecture with "
            "--like, for its tokenizer and configs"
        )
    if source.suffix != WEIGHTS:
        raise UntrustedModel(f"{source.name} is no {WEIGHTS} file; other formats can run code")
    # Not before: it imports torch.
    from diffusion.originals.single_file import unpack_single_file  # noqa: PLC0415

    folder = Path(like) if Path(like).is_dir() else _registered(like, registry)
    with told(source.name):
        check_content(source, source.name)
        scratch = registry.making.begin(f"unpack-{model_id}")
    try:
        with told(source.name):
            unpack_single_file(source, folder, scratch)
        return import_base(scratch, model_id, registry, signer)
    finally:
        registry.making.clear(scratch)


def _registered(model_id: str, registry: ModelRegistry) -> Path:
    """Raises ModelNotFound, UntrustedModel."""
    manifest = registry.get(model_id)
    manifest.check_files(registry.path(manifest.id))
    return registry.path(manifest.id)
