"""Memory of the host that nothing uses any more, and the C library keeps for later."""

import contextlib
import ctypes
import time
from collections.abc import Callable

EVERY_S = 60.0
"""Asking took 0.05 to 0.65 ms with 400 MiB held; what is used again is handed out anew, in page
faults."""


def return_to_system() -> None:
    """Tensors of a few megabytes stay in the heap when they are freed; glibc lets go when asked.

    Other C libraries know no such call, and nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class Returning:
    """Returns it now and then, from within a loop that goes on for days.

    What lives long, such as a model's tensors, comes to lie among what a pass used and gave back.
    A larger piece does not fit between any more, and the heap grows though no more is in use.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due_s = now() + EVERY_S

    def __call__(self) -> None:
        if self._now() >= self._due_s:
            return_to_system()
            self._due_s = self._now() + EVERY_S
