"""A worker's name is its own: whoever has the same name takes back what that one holds."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import structlog

from core.errors import Misconfigured
from core.process_lock import HeldByAnother, exclusive

log = structlog.get_logger()


@contextlib.contextmanager
def held(run_dir: Path, owner: str) -> Iterator[None]:
    """No other worker of this name starts meanwhile.

    Raises:
        Misconfigured: a worker of that name runs.
    """
    path = run_dir / f"{owner}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(exclusive(path))
        except HeldByAnother as error:
            raise Misconfigured(
                f"process {error.pid} is {owner} already, and two of one name would take each "
                "other's jobs; stop it, or choose another --name"
            ) from error
        except OSError as error:
            # A file system without locks: names are the operator's business there.
            log.warning("its name is not held", owner=owner, reason=error.strerror)
        yield
