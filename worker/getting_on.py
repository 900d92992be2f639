"""Whether work gets on that takes as long as disks take."""

import time
from collections.abc import Callable


class GettingOn:
    def __init__(self, within_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            within_s: how long nothing may change.
        """
        self._within_s = within_s
        self._now = now
        self._seen: tuple[int, ...] = ()
        self._changed_s = now()

    def at(self, *counts: int) -> bool:
        """Whether one of `counts`, of what was done, has changed within the time."""
        if counts != self._seen:
            self._seen, self._changed_s = counts, self._now()
        return self._now() - self._changed_s < self._within_s
