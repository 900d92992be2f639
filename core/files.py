"""Files that are either there, whole, or not there."""

import errno
import os
import secrets
import shutil
import stat
import tempfile
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO

from core.byte_counting import listener

CHUNK_BYTES = 1 << 20


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read it: neither a symbolic link, nor a pipe that would never answer.

    Raises:
        OSError
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(handle, "rb")


def read_plain(path: Path, *, most_bytes: int) -> bytes:
    """A whole plain file, unless it is larger than it should ever be.

    Raises:
        OSError
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Nor one that grows while it is read.
        data = file.read(most_bytes + 1) if size <= most_bytes else b""
        if max(size, len(data)) > most_bytes:
            raise OSError(errno.EFBIG, f"it is over {most_bytes} bytes", str(path))
    return data


def write_atomically(
    path: Path, data: bytes, *, mode: int = 0o644, scratch: Path | None = None
) -> None:
    """A reader, or a crash, sees the old file or the new one, never a part.

    Args:
        scratch: a folder of the same file system for the file while it is written; beside
            `path` if none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch or path.parent
    scratch.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=scratch, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_unfinished(folder: Path, names: str) -> None:
    """What kills in `write_atomically` left in a folder; who still writes there fails.

    Args:
        names: a pattern of the files that were to be.
    """
    for left in folder.glob(f".{names}.*"):
        left.unlink(missing_ok=True)


def write_unnamed(path: Path, data: bytes, *, syncing: Executor) -> None:
    """Write where nobody looks before it is said to be there: on return it is, whole and durable.

    A crash may leave a part, under a name that was told to nobody. Compared with
    `write_atomically` it saves a rename, and waits for the disk once: file and folder are made
    durable at the same time.

    Args:
        syncing: has a thread to spare for the folder.

    Raises:
        OSError
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, 0o644)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            folder = syncing.submit(sync_folder, path.parent)
            os.fsync(file.fileno())
            folder.result()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def move_whole(folder: Path, target: Path, *, by: Path) -> None:
    """Visible at once and whole, or not at all, also from one file system to another.

    Whole after a loss of power, too: the bytes are on the disk before the name is.

    Args:
        by: a folder on the file system of `target`.

    Raises:
        OSError
    """
    sync_tree(folder)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    copy = by / secrets.token_hex(8)
    try:
        shutil.copytree(folder, copy)
        sync_tree(copy)
        copy.rename(target)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    shutil.rmtree(folder)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make a folder durable: every plain file in it, and every name.

    Raises:
        OSError
    """
    for path in [*folder.rglob("*"), folder]:
        if path.is_symlink():
            continue
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with open_plain(path) as file:
                os.fsync(file.fileno())


def copy_plain(source: Path, target: Path) -> None:
    """Copy a plain file into a new one. Raises OSError."""
    with open_plain(source) as file, target.open("xb") as copy:
        shutil.copyfileobj(_Counted(file), copy, CHUNK_BYTES)


class _Counted:
    """A file of which whoever waits hears as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._heard = listener()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._heard(len(data))
        return data
