"""Memory of the host that nothing uses any more, and the C library keeps for later."""

import contextlib
import ctypes


def return_to_system() -> None:
    """Tensors of a few megabytes stay in the heap when they are freed; glibc lets go when asked.

    Other C libraries know no such call, and nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
