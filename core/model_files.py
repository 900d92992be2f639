"""The files of a model, each read once: what was checked is what is used.

A file may be changed between a check and a second reading of it. So whoever loads a model reads
it through here: the bytes that were digested are the bytes that come back, and nothing is opened
again.
"""

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import ModelUnsupported, UntrustedModel
from core.files import CHUNK_BYTES, open_plain, sha256
from core.manifests import Manifest, file_names

MAX_WHOLE_BYTES = 64 << 20
"""Of a file that is read as a whole: configs, words, lists of shards."""
CHECKERS = 2
"""Threads that digest what nobody reads but for that."""
AHEAD_BYTES = 256 << 20
"""How much may have been read and not digested yet."""


class CheckedStream(io.RawIOBase):
    """Reads a file from front to back, and digests what it gives out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._digesting = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._behind: deque[tuple[Future[None], int]] = deque()
        self.size = os.fstat(file.fileno()).st_size
        """In bytes, when it was opened."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._catch_up(0)
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._digest.update(memoryview(buffer)[:count])
        return int(count)

    def fill(self, buffer: Any) -> None:
        """Like `readinto`; the buffer is not to change: it may be digested while more is read."""
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        read = memoryview(buffer)[:count]
        self._behind.append((self._digesting.submit(self._digest.update, read), count))
        # So that whoever drops what he has read does not fill the memory.
        self._catch_up(AHEAD_BYTES)

    def _catch_up(self, ahead_bytes: int) -> None:
        """Wait until no more than so much is left to digest."""
        while sum(size for _, size in self._behind) > ahead_bytes:
            digested, _ = self._behind.popleft()
            digested.result()

    def close(self) -> None:
        self._digesting.shutdown()
        super().close()

    def hexdigest(self) -> str:
        """Of the whole file, the part that nobody has read included."""
        self._catch_up(0)
        while self.read(CHUNK_BYTES):
            pass
        return self._digest.hexdigest()


class ModelFiles:
    """The folder of a model, held against its manifest; nothing is checked without one."""

    def __init__(self, folder: Path, manifest: Manifest | None) -> None:
        """
        Raises:
            UntrustedModel: a file is there that is not listed, or one that is listed is not.
        """
        self.folder = folder
        self._manifest = manifest
        self.listed = frozenset() if manifest is None else frozenset(manifest.files)
        """Every file that the manifest lists."""
        if manifest is not None:
            manifest.check_names(file_names(folder))

    def __contains__(self, name: str) -> bool:
        if self._manifest is None:
            return (self.folder / name).is_file()
        return name in self.listed

    def below(self, part: str) -> list[str]:
        """The names of the files in a folder of the model, and in its folders."""
        if self._manifest is None:
            found = (path for path in (self.folder / part).rglob("*") if path.is_file())
            return sorted(path.relative_to(self.folder).as_posix() for path in found)
        return sorted(name for name in self.listed if name.startswith(f"{part}/"))

    @contextmanager
    def stream(self, name: str) -> Iterator[CheckedStream]:
        """A file to be read once; **what was read may be used after the block, and not within**.

        Raises:
            UntrustedModel: at the end of the block, if what was read is not as the manifest says.
        """
        try:
            # Unregistered folders, such as a hub's cache, consist of links.
            opened = open_plain if self._manifest else _open
            with opened(self.folder / name) as file, CheckedStream(file) as stream:
                yield stream
                found = stream.hexdigest()
        except OSError as error:
            raise UntrustedModel(
                f"{self.folder.name}: {name} cannot be read: {error.strerror}"
            ) from error
        if self._manifest is not None and found != self._manifest.files.get(name):
            raise UntrustedModel(f"model {self._manifest.id}: {name} differs from its manifest")

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


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
