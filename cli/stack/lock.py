"""One stack to a data folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import Misconfigured


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Raises Misconfigured when another process holds it."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Misconfigured(
                f"process {file.read().strip() or '?'} runs a stack on {path.parent} already; "
                "stop it, or choose another folder with --data-dir"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
