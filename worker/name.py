"""A worker's name is its own: whoever has the same name takes back what that one holds."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from core.errors import Misconfigured

log = structlog.get_logger()


@contextlib.contextmanager
def held(run_dir: Path, owner: str) -> Iterator[None]:
    """No other worker of this name starts meanwhile; the lock goes with its process, however.

    Processes that it starts do not inherit the lock: what outlives it keeps nobody out.

    Raises:
        Misconfigured: a worker of that name runs.
    """
    path = run_dir / f"{owner}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Misconfigured(
                f"process {file.read().strip() or '?'} is {owner} already, and two of one name "
                "would take each other's jobs; stop it, or choose another --name"
            ) from error
        except OSError as error:
            # A file system without locks: names are the operator's business there.
            log.warning("its name is not held", owner=owner, reason=error.strerror)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
