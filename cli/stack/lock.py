"""One stack to a data folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from core.errors import Misconfigured
from core.process_lock import HeldByAnother, exclusive


@contextlib.contextmanager
def only_stack(path: Path) -> Iterator[None]:
    """Raises Misconfigured when another process holds it."""
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(exclusive(path))
        except HeldByAnother as error:
            raise Misconfigured(
                f"process {error.pid} runs a stack on {path.parent} already; "
                "stop it, or choose another folder with --data-dir"
            ) from error
        yield
