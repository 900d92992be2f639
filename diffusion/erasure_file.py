"""What an erased model changes, read from its folder and held against manifest and base."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from core.errors import UntrustedModel
from core.files import open_plain
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.safetensors_header import read_header
from diffusion.erasure import CHANGED, FILENAME, Erasure

BYTES_PER_PARAMETER = 8
"""At most, of a changed tensor in a file: float64, twice what is written."""
MAPS_BYTES = 64 << 20
"""At most, of a file's header and text maps: twice those of SDXL, the widest."""


def read_erasure(
    files: ModelFiles, base: Manifest, shapes: Mapping[str, tuple[int, ...]]
) -> Erasure:
    """
    Args:
        files: of the erased model; its other files are not looked at.
        shapes: of the base's UNet, by names of its tensors.

    Raises:
        UntrustedModel: it is not as the manifest says, or larger than any erasure of the base.
        ModelUnsupported: it is of another UNet.
    """
    most = BYTES_PER_PARAMETER * sum(map(math.prod, shapes.values())) + MAPS_BYTES
    with files.stream(FILENAME) as stream:
        if stream.size > most:
            raise UntrustedModel(
                f"model {files.folder.name}: {FILENAME} has {stream.size} bytes, and no erasure "
                f"of {base.id} has more than {most}"
            )
        data = stream.read(stream.size)
    erasure = Erasure.parse(data)
    erasure.check_fits(dict(shapes))
    return erasure


def changed_counts(folder: Path) -> dict[str, int]:
    """How many numbers each changed tensor of the UNet has, as the file's header says, unchecked.

    Of a file that cannot be read nothing: whoever loads the model says what is wrong with it.
    """
    try:
        with open_plain(folder / FILENAME) as file:
            size = os.fstat(file.fileno()).st_size
            stored = read_header(file, size, f"{folder.name}: {FILENAME}")
    except (OSError, UntrustedModel):
        return {}
    return {
        one.name.removeprefix(CHANGED): math.prod(one.shape)
        for one in stored
        if one.name.startswith(CHANGED)
    }
