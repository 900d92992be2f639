"""Copy a model from wherever it comes from: plain files of known kinds, checked when ours.

Nothing of the source is believed: it may hold links, pipes, programs, or files that are not what
their names say.
"""

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ModelUnsupported, NotEnoughRoom, UntrustedModel
from core.files import copy_plain, open_plain, read_plain
from core.model_files import MAX_WHOLE_BYTES
from core.model_folder import MANIFEST, REPORTS
from core.safetensors_header import read_header

WEIGHTS = ".safetensors"
SUFFIXES = {".json", WEIGHTS, ".txt", ".md", ".model"}
"""Nothing that could execute when loaded: no pickle in any dress."""
MAX_FILES = 2000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


def copy_model(source: Path, folder: Path) -> None:
    """Copy what belongs to a model from the folder `source` into `folder`.

    Hidden files, a manifest and reports stay behind: they say something of the source alone.

    Raises:
        ModelUnsupported: a link, or a name, that no model needs; or a file cannot be read.
        UntrustedModel: a file is not what its name says.
        NotEnoughRoom.
    """
    with told(source.name):
        names = sorted(_names(source))
        if len(names) > MAX_FILES:
            raise ModelUnsupported(f"{source.name} holds over {MAX_FILES} files; it is no model")
        for name in names:
            what = f"{source.name}: {name}"
            check_content(source / name, what)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_plain(source / name, target)
            # Now the copy, where nobody else writes; before, so that no rubbish is copied.
            check_content(target, what)


def check_content(path: Path, what: str) -> None:
    """
    Raises:
        UntrustedModel: the file is not what its name says.
        OSError
    """
    size = path.stat().st_size
    if path.suffix == WEIGHTS:
        with open_plain(path) as file:
            read_header(file, size, what)
        return
    if size > MAX_WHOLE_BYTES:
        raise UntrustedModel(f"{what} is over {MAX_WHOLE_BYTES} bytes")
    if path.suffix == ".json":
        try:
            json.loads(read_plain(path, most_bytes=MAX_WHOLE_BYTES))
        except (ValueError, RecursionError) as error:
            raise UntrustedModel(f"{what} is not JSON") from error


@contextmanager
def told(source: str) -> Iterator[None]:
    """Within, what the operating system refuses is an error with a name.

    Raises:
        NotEnoughRoom, ModelUnsupported.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NotEnoughRoom(f"{source} does not fit on the disk of the models") from error
        place = f" ({error.filename})" if error.filename else ""
        raise ModelUnsupported(f"{source} cannot be copied: {error.strerror}{place}") from error


def _names(source: Path) -> Iterator[str]:
    for path in source.rglob("*"):
        name = path.relative_to(source)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.is_symlink():
            raise ModelUnsupported(
                f"{source.name}: {name} is a symbolic link, which is not followed; "
                "copy the folder with `cp -rL` first"
            )
        if path.is_dir() or path.suffix not in SUFFIXES:
            continue
        if name.as_posix() == MANIFEST or name.parts[0] == REPORTS:
            continue
        if not path.is_file() or not all(NAME.fullmatch(part) for part in name.parts):
            raise ModelUnsupported(
                f"{source.name}: {str(name)!r} is not a plain file with a plain name"
            )
        yield name.as_posix()
