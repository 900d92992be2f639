"""Digests of files, by two algorithms.

SHA-256 names a file everywhere: in buckets, on hubs, at a command line. BLAKE3 is as hard to forge
and takes a quarter of the time (on one thread, 4.6 GB/s against 1.3), so that is what a model's
files are held against while they are loaded.
"""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from core.byte_counting import listener
from core.files import CHUNK_BYTES, open_plain


class Algorithm(StrEnum):
    SHA256 = "SHA-256"
    BLAKE3 = "BLAKE3"


class Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def hasher(algorithm: Algorithm) -> Hasher:
    return blake3() if algorithm is Algorithm.BLAKE3 else hashlib.sha256()


def digests(path: Path, *algorithms: Algorithm) -> tuple[str, ...]:
    """Of a plain file that is read once, in the order of `algorithms`. Raises OSError."""
    made, heard = [hasher(one) for one in algorithms], listener()
    with open_plain(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            for one in made:
                one.update(chunk)
            heard(len(chunk))
    return tuple(one.hexdigest() for one in made)


def sha256(path: Path) -> str:
    """Of a plain file. Raises OSError."""
    return digests(path, Algorithm.SHA256)[0]
