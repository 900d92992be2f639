"""Whether a file is still the one that was read, told without reading it."""

from pathlib import Path
from typing import NamedTuple


class FileMark(NamedTuple):
    """Changes whenever a file is replaced or written."""

    name: str
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    """Of the inode (ctime): who writes a file can set back its other times, and not this one."""


def mark_of(path: Path) -> FileMark | None:
    """None when there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return FileMark(str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
