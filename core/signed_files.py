"""Small files of a model, read once and held against what was signed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from core.errors import UntrustedModel
from core.files import read_plain
from core.manifests import Manifest
from core.model_files import MAX_WHOLE_BYTES


def signed_file(folder: Path, manifest: Manifest, name: str, digests: Mapping[str, str]) -> bytes:
    """
    Args:
        folder: of the model.
        digests: name -> SHA-256, as the manifest has them.

    Raises:
        UntrustedModel: it is missing, no plain file, too large, or not as the manifest says.
    """
    try:
        data = read_plain(folder / name, most_bytes=MAX_WHOLE_BYTES)
    except FileNotFoundError as error:
        raise UntrustedModel(f"model {manifest.id}: {name} is missing") from error
    except OSError as error:
        raise UntrustedModel(
            f"model {manifest.id}: {name} cannot be read: {error.strerror}"
        ) from error
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise UntrustedModel(f"model {manifest.id}: {name} differs from its manifest")
    return data
