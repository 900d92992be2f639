"""A model's folder as one tar file, made while it is sent: nothing is held, nothing written."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from core.errors import UntrustedModel
from core.files import CHUNK_BYTES
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.model_folder import MANIFEST

END = b"\0" * 2 * tarfile.BLOCKSIZE


class ModelArchive:
    """All that a signed manifest lists, and the manifest itself, below a folder of the id."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Checks every file once before anything is sent. Raises UntrustedModel."""
        manifest.check_files(folder)
        self._files = ModelFiles(folder, manifest)
        self._manifest = manifest
        self._told = manifest.file_bytes()
        self._sizes = {name: (folder / name).stat().st_size for name in sorted(manifest.files)}

    @property
    def size(self) -> int:
        """In bytes."""
        sizes = {MANIFEST: len(self._told), **self._sizes}
        headers = sum(len(self._header(name, size)) for name, size in sizes.items())
        return headers + sum(size + len(_padding(size)) for size in sizes.values()) + len(END)

    def __iter__(self) -> Iterator[bytes]:
        """Raises UntrustedModel before the end of a file that changed since it was checked."""
        yield self._header(MANIFEST, len(self._told)) + self._told + _padding(len(self._told))
        for name, size in self._sizes.items():
            yield self._header(name, size)
            with self._files.stream(name) as stream:
                if stream.size != size:
                    raise UntrustedModel(f"model {self._manifest.id}: {name} has changed")
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
            yield _padding(size)
        yield END

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(f"{self._manifest.id}/{name}")
        info.size = size
        info.mtime = int(self._manifest.created_at)
        return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)
