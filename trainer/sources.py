"""A digest of the sources that decide what an erasure becomes, for keys of what is kept.

The version number of the code stays as it is over many changes; a lesson, a checkpoint or a cached
erasure of other sources would be taken for one of these.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
READ = ("diffusion", "trainer")
NOT_SOURCES = {".pyc"}
APART = ("trainer/evaluation", "trainer/pretraining")
"""They look at erasures, or make bases, and decide nothing of an erasure's weights."""


@cache
def erasing_digest() -> str:
    """Of everything in these folders but what only looks on."""
    return _digest(_sources(ROOT, apart=APART))


@cache
def measuring_digest() -> str:
    """Of everything in them."""
    return _digest(_sources(ROOT))


def _sources(root: Path, *, apart: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for folder in READ for path in (root / folder).rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and path.suffix not in NOT_SOURCES and not name.startswith(apart):
            yield name, path.read_bytes()


def _digest(sources: Iterator[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in sources:
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
