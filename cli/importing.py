"""A base model that comes as one file."""

from pathlib import Path
from typing import Literal

from core.copying import WEIGHTS, check_content, told
from core.errors import Invalid, UntrustedModel
from core.importing import import_base
from core.manifests import Manifest
from core.registry import ModelRegistry
from core.signing import Signer

Prediction = Literal["epsilon", "v_prediction"]


def import_file(
    source: Path,
    model_id: str,
    registry: ModelRegistry,
    signer: Signer,
    *,
    like: str | None,
    prediction: Prediction | None,
) -> Manifest:
    """Unpack a `.safetensors` file in the original layout into the registry as a base model.

    Args:
        like: a base model's id or a diffusers folder of the same architecture; None: the
            published model of the file's family.
        prediction: what its UNet predicts, where `like` is None and the file does not say.

    Raises:
        Invalid: both are given; `like` says what is predicted.
        ModelUnsupported, UntrustedModel, NotEnoughRoom, ModelExists, ModelNotFound.
    """
    if like is not None and prediction is not None:
        raise Invalid(f"{like} says what is predicted; give --like or --prediction, not both")
    if source.suffix != WEIGHTS:
        raise UntrustedModel(f"{source.name} is no {WEIGHTS} file; other formats can run code")
    # Not before: it imports torch.
    from diffusion.originals.single_file import unpack_single_file  # noqa: PLC0415
    from trainer.full_disk import full_disk_named  # noqa: PLC0415

    folder = None
    if like is not None:
        folder = Path(like) if Path(like).is_dir() else _registered(like, registry)
    with told(source.name):
        check_content(source, source.name)
        scratch = registry.making.begin(f"unpack-{model_id}")
    try:
        with told(source.name), full_disk_named(scratch):
            unpack_single_file(source, folder, scratch, prediction=prediction)
        return import_base(scratch, model_id, registry, signer)
    finally:
        registry.making.clear(scratch)


def _registered(model_id: str, registry: ModelRegistry) -> Path:
    """Raises ModelNotFound, UntrustedModel."""
    manifest = registry.get(model_id)
    manifest.check_files(registry.path(manifest.id))
    return registry.path(manifest.id)
