"""Where finished pictures lie: bytes under a key, in a place that all processes see."""

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from core.errors import ImageNotFound, PicturesUnavailable
from core.files import read_plain, write_unnamed

KEY = re.compile(r"^[a-z0-9-]+(/[a-z0-9.-]*[a-z0-9])+$")
MAX_PICTURE_BYTES = 256 << 20


class PictureStore(Protocol):
    """What service and workers need of a place for pictures."""

    @property
    def where(self) -> str:
        """In words, for people."""

    def put(self, key: str, data: bytes) -> None:
        """Whoever looks under the key meanwhile may see a part: it is told to nobody before."""

    def get(self, key: str) -> bytes:
        """Raises ImageNotFound."""

    def delete_below(self, prefix: str) -> None:
        """Remove every key that starts with `prefix/`."""

    def older_than(self, age_s: float, *, now: float) -> Iterator[str]:
        """First-level names below `generations/` untouched for `age_s` seconds, one by one: there
        may be millions."""


class Storage:
    """In a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = f"the folder {folder}"
        # As many as put pictures at a time.
        self._syncing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sync")

    def put(self, key: str, data: bytes) -> None:
        write_unnamed(self._path(key), data, syncing=self._syncing)

    def get(self, key: str) -> bytes:
        """Raises ImageNotFound, PicturesUnavailable."""
        try:
            return read_plain(self._path(key), most_bytes=MAX_PICTURE_BYTES)
        except FileNotFoundError as error:
            raise ImageNotFound(f"no picture {key}; it is kept only as long as its job") from error
        except OSError as error:
            raise PicturesUnavailable(f"{key} cannot be read: {error.strerror}") from error

    def delete_below(self, prefix: str) -> None:
        """Remove every key that starts with `prefix/`."""
        shutil.rmtree(self._path(f"{prefix}/all").parent, ignore_errors=True)

    def older_than(self, age_s: float, *, now: float) -> Iterator[str]:
        """First-level names below `generations/` untouched for `age_s` seconds."""
        root = self._folder / "generations"
        if not root.is_dir():
            return
        with os.scandir(root) as entries:
            for entry in entries:
                try:
                    touched = entry.stat().st_mtime
                except FileNotFoundError:
                    continue  # another service tidies, too
                if now - touched > age_s:
                    yield entry.name

    def _path(self, key: str) -> Path:
        assert KEY.match(key), key
        return self._folder / key
