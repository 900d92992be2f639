"""A file that one process holds at a time, with its number in it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

PID_DIGITS = 10


class HeldByAnother(Exception):
    """`pid` is what the file says of who holds it, "?" where it says nothing."""

    def __init__(self, pid: str) -> None:
        super().__init__(pid)
        self.pid = pid


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """The lock goes with its process, however that ends; what that starts does not inherit it.

    Raises:
        HeldByAnother
        OSError: the file cannot be opened, or its file system knows no locks.
    """
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise HeldByAnother(file.read(PID_DIGITS).decode(errors="replace") or "?") from error
        # A full disk hides who holds it, and takes it from nobody.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield
