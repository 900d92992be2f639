"""The files of a model, each read once: what was checked is what is used.

A file may be changed between a check and a second reading of it. So whoever loads a model reads
it through here: the bytes that were digested are the bytes that come back, and nothing is opened
again.
"""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from core.checked_stream import CheckedStream
from core.digests import Algorithm, hasher, sha256
from core.errors import ModelUnsupported, UntrustedModel
from core.files import open_plain
from core.late_digest import LateDigest
from core.manifests import Manifest
from core.model_folder import file_names
from core.safetensors_header import StoredTensor, read_header

MAX_WHOLE_BYTES = 64 << 20
"""Of a file that is read as a whole: configs, words, lists of shards."""
CHECKERS = 2
"""Threads that digest what nobody reads but for that."""


class ModelFiles:
    """The folder of a model, held against its manifest; nothing is checked without one."""

    def __init__(self, folder: Path, manifest: Manifest | None) -> None:
        """
        Raises:
            UntrustedModel: a file is there that is not listed, or one that is listed is not.
        """
        self.folder = folder
        self._manifest = manifest
        self._algorithm: Algorithm | None = None
        self._expected: dict[str, str] = {}
        self._id = folder.name if manifest is None else manifest.id
        self.listed = frozenset() if manifest is None else frozenset(manifest.files)
        """Every file that the manifest lists."""
        self._passed: set[str] = set()
        if manifest is not None:
            self._algorithm, self._expected = manifest.checked_by
            manifest.check_names(file_names(folder))

    def __contains__(self, name: str) -> bool:
        if self._manifest is None:
            return (self.folder / name).is_file()
        return name in self.listed

    @property
    def unread(self) -> list[str]:
        """Files that the manifest lists and nobody has read to their end, in order."""
        return sorted(self.listed - self._passed)

    def below(self, part: str) -> list[str]:
        """The names of the files in a folder of the model, and in its folders."""
        if self._manifest is None:
            found = (path for path in (self.folder / part).rglob("*") if path.is_file())
            return sorted(path.relative_to(self.folder).as_posix() for path in found)
        return sorted(name for name in self.listed if name.startswith(f"{part}/"))

    def size_bytes(self, name: str) -> int:
        """Of a file; 0 of one that is not there, or cannot be looked at."""
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return 0

    @contextmanager
    def stream(self, name: str) -> Iterator[CheckedStream]:
        """A file to be read once; **what was read may be used after the block, and not within**.

        After `check_later` it may be used, and nothing made with it be let out before that check
        has passed.

        Raises:
            UntrustedModel: at the end of the block, if what was read is not as the manifest says.
        """
        digest = None if self._algorithm is None else LateDigest(hasher(self._algorithm))
        try:
            with (
                nullcontext() if digest is None else closing(digest),
                self._open(name) as file,
                CheckedStream(file, digest) as stream,
            ):
                yield stream
                if digest is not None:
                    stream.finish()
        except OSError as error:
            raise UntrustedModel(
                f"{self.folder.name}: {name} cannot be read: {error.strerror}"
            ) from error
        if digest is None:
            return
        check = partial(self._compare, name, digest)
        if stream.later is None:
            check()
        else:
            stream.later.append(check)

    def _compare(self, name: str, digest: LateDigest) -> None:
        if digest.hexdigest() != self._expected.get(name):
            raise UntrustedModel(f"model {self._id}: {name} differs from its manifest")
        self._passed.add(name)

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            UntrustedModel: it is not as the manifest says, or too large to be what it should be.
        """
        with self.stream(name) as stream:
            data = stream.read(min(stream.size, MAX_WHOLE_BYTES) + 1)
        if len(data) > MAX_WHOLE_BYTES:
            raise UntrustedModel(f"{self.folder.name}: {name} is over {MAX_WHOLE_BYTES} bytes")
        return data

    def read_json(self, name: str) -> dict[str, Any]:
        """Raises UntrustedModel; ModelUnsupported: it is missing, or not a JSON object."""
        told = f"{self.folder.name}: {name}"
        if name not in self:
            raise ModelUnsupported(f"{told} is missing")
        try:
            document = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise ModelUnsupported(f"{told} is not JSON") from error
        if not isinstance(document, dict):
            raise ModelUnsupported(f"{told} does not hold a JSON object")
        return document

    def header(self, name: str) -> tuple[StoredTensor, ...]:
        """What a safetensors file says of its tensors. The file is not digested: it may lie.

        Raises:
            UntrustedModel: it is no plain file, or no safetensors file.
        """
        what = f"{self.folder.name}: {name}"
        try:
            with self._open(name) as file:
                return read_header(file, os.fstat(file.fileno()).st_size, what)
        except OSError as error:
            raise UntrustedModel(f"{what} cannot be read: {error.strerror}") from error

    def digest(self, name: str) -> str:
        """The SHA-256 of a file; with a manifest, what it should be."""
        return sha256(self.folder / name) if self._manifest is None else self._manifest.files[name]

    @contextmanager
    def checked_beside(self, names: Iterable[str]) -> Iterator[None]:
        """Read files for their digests alone, in threads of their own, while the block runs.

        Raises:
            UntrustedModel: at the end of the block; what it made is not to be used then.
        """
        with ThreadPoolExecutor(CHECKERS, thread_name_prefix="check") as pool:
            checking = [pool.submit(self.check, name) for name in names]
            try:
                yield
                for checked in checking:
                    checked.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def check(self, name: str) -> None:
        """Read a file for its digest alone.

        Raises:
            UntrustedModel
        """
        with self.stream(name):
            pass

    def _open(self, name: str) -> BinaryIO:
        # Unregistered folders, such as a hub's cache, consist of links.
        path = self.folder / name
        return path.open("rb") if self._manifest is None else open_plain(path)
