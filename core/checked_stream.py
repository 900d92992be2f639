"""A file that is read once, from front to back, and digested as it is read or later.

What is left for later is a check: a call that raises where the file was not as its manifest says.
"""

import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from core.files import CHUNK_BYTES
from core.late_digest import SLICE_BYTES, LateDigest

Check = Callable[[], None]
"""Raises UntrustedModel."""


@dataclass(frozen=True)
class LeftToCheck:
    """Of a model that is loaded; nothing made with it may be let out before all has passed."""

    read: list[Check] = field(default_factory=list)
    """Of what is in memory: nobody is to write to it before."""
    unread: list[Check] = field(default_factory=list)
    """Of files that nobody needs in order to draw."""


class CheckedStream(io.RawIOBase):
    """Reads a file from front to back, and digests what it gives out."""

    def __init__(self, file: BinaryIO, digest: LateDigest | None) -> None:
        """
        Args:
            digest: takes in all that is read; None: nobody will ask.
        """
        self._file = file
        self._digest = digest
        self.size = os.fstat(file.fileno()).st_size
        """In bytes, when it was opened."""
        self.later: list[Check] | None = None
        """Where it is put what is left to do when all was read, if that is not to be done then."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        if count and self._digest is not None:
            self._digest.take(memoryview(buffer)[:count])
            self._digest.catch_up()
        return int(count)

    def check_later(self, checks: list[Check]) -> None:
        """Digest nothing more before a check is called that is put among these.

        It reads what `fill` has filled, which is to stay as it is until then, and no file.
        """
        if self._digest is not None:
            self._digest.put_off()
            self.later = checks

    def fill(self, buffer: memoryview) -> None:
        """Read on, to the end of a buffer of bytes.

        It is not to change: it may be digested while more is read.

        Raises:
            OSError: the file has ended.
        """
        rest = buffer
        while rest:
            count = self._file.readinto(rest[:SLICE_BYTES])  # type: ignore[attr-defined]
            if not count:
                raise OSError(errno.EIO, "it ends too early")
            if self._digest is not None:
                self._digest.take(rest[:count])
            rest = rest[count:]

    def finish(self) -> None:
        """Digest the rest of the file, that nobody has read."""
        # Into the same memory again and again: fresh pages cost seven times what the digest does.
        buffer = bytearray(min(CHUNK_BYTES, self.size + 1))
        while self.readinto(buffer):
            pass
