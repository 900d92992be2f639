"""A model's folder is whole or not there."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import Invalid, ModelExists
from core.files import sync_folder, sync_tree


def check_empty(out: Path) -> None:
    """The folder of a model can be made here. Raises ModelExists, Invalid."""
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise Invalid(f"{out} cannot be looked into: {error.strerror}") from error
    if taken:
        raise ModelExists(f"{out} is not empty; name a folder that does not exist yet")
    # It comes by a rename, for which its parent must be writable.
    check_writable(out.resolve().parent)


def check_writable(folder: Path) -> None:
    """Files can be made in a folder, or in the nearest one above it that is there already.

    Raises:
        Invalid
    """
    place = next(one for one in (folder, *folder.resolve().parents) if one.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".trce.", dir=place):
            pass
    except OSError as error:
        raise Invalid(
            f"{folder} cannot be written to ({place}: {error.strerror}); name another folder"
        ) from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it when the body of the `with` ends, and else is gone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        _make_readable(folder)
        sync_tree(folder)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(out.parent)


def _make_readable(folder: Path) -> None:
    """Temporary folders and safetensors files are private at first; other processes serve this."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
