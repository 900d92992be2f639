"""Memory of the host that nothing uses any more, and the C library keeps for later or does not."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
KEPT_BYTES = 1 << 30
LARGEST_IN_HEAP_BYTES = 1 << 25
"""The most that glibc takes for it."""


def return_to_system() -> None:
    """Tensors of a few megabytes stay in the heap when they are freed; glibc lets go when asked.

    Other C libraries know no such call, and nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_for_next_pass() -> None:
    """Let what a UNet pass frees stay with this process until `return_to_system`, up to 1 GiB.

    The next pass allocates the same. By itself glibc gives it back in between, and the kernel
    clears its pages again: 8,500 page faults in a pass of 32 rows of the shipped model. What is
    larger than 32 MiB comes and goes as before. Other C libraries know no such call.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
