"""SIGTERM, so that nothing half-written stays behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM
"""What a process ends with that was told to, as shells have it."""


@contextmanager
def cleaned_up() -> Iterator[None]:
    """Within, SIGTERM leaves through every `finally`."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)
