"""How long a worker claims nothing after something that all jobs need has failed."""

import time
from collections.abc import Callable

FIRST_S = 1.0
LONGEST_S = 30.0


class Patience:
    """Twice as long after each failure in a row: drawing what cannot be stored is in vain."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pause_s = 0.0
        self._until = 0.0

    @property
    def waits(self) -> bool:
        return self._now() < self._until

    def failed(self) -> None:
        """Failures while it waits already are of work that was begun before: they are one."""
        if not self.waits:
            self._pause_s = min(LONGEST_S, max(FIRST_S, 2 * self._pause_s))
            self._until = self._now() + self._pause_s

    def succeeded(self) -> None:
        self._pause_s = 0.0
