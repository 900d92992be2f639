"""Whoever waits for gigabytes to be read, copied or sent hears of them as they pass.

Set around the work rather than handed down: between a command and the loop that reads a file lie
the registry, the manifest and the bucket, none of which the count concerns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int], None]
"""Is given the bytes that have passed since its last call."""


def _nobody(_: int) -> None:
    """Nobody waits."""


_listener: ContextVar[Listener] = ContextVar("bytes listener", default=_nobody)


@contextmanager
def counting(listener: Listener) -> Iterator[None]:
    """Within, and in this thread, `listener` hears of all that is digested, copied or pushed."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def listener() -> Listener:
    """To call with every number of bytes; from other threads, too."""
    return _listener.get()
