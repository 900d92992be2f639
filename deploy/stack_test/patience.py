"""How long the stack test waits for what."""

import contextlib
import time
from collections.abc import Callable

import httpx

READY_WITHIN_S = 600.0
JOB_WITHIN_S = 600.0
TAKEN_WITHIN_S = 180.0
"""A request, while the service is away."""
LOOK_AGAIN_S = 0.3


def eventually(is_so: Callable[[], bool], within_s: float, otherwise: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if is_so():
                return
        time.sleep(LOOK_AGAIN_S)
    raise TimeoutError(f"{otherwise} within {within_s:.0f} s")
