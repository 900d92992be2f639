"""A model looked through before another one gives way to it; nothing that is read is kept."""

from pathlib import Path

from core.manifests import Manifest
from core.model_files import ModelFiles
from diffusion.erasure import FILENAME
from diffusion.erasure_file import read_erasure
from diffusion.loading import check_base, unet_shapes


def vet_base(folder: Path, base: Manifest) -> None:
    """Every file as the manifest says, classes and shapes that fit, a scheduler that can draw.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    check_base(folder, base)


def vet_erased(folder: Path, manifest: Manifest, base_folder: Path, base: Manifest) -> None:
    """What was erased, and whether it is of that base.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    files = ModelFiles(folder, manifest)
    with files.checked_beside(sorted(files.listed - {FILENAME})):
        read_erasure(files, base, unet_shapes(base_folder, base))
