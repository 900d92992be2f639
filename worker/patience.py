"""How long a worker claims nothing after something that all jobs need has failed."""

import time
from collections.abc import Callable

FIRST_S = 1.0
LONGEST_S = 30.0


class Patience:
    """Twice as long after each failure in a row: drawing what cannot be stored is in vain."""

    def __init__(self, *, pause_s: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            pause_s: that of an earlier process, if what failed there may fail here again.
        """
        self._now = now
        self.pause_s = pause_s
        self._until = 0.0

    @property
    def waits(self) -> bool:
        return self._now() < self._until

    def failed(self) -> None:
        """Failures while it waits already are of work that was begun before: they are one."""
        if not self.waits:
            self.pause_s = min(LONGEST_S, max(FIRST_S, 2 * self.pause_s))
            self._until = self._now() + self.pause_s

    def succeeded(self) -> None:
        self.pause_s = 0.0
