"""Fair turns between batches of different weights that wait for one device."""

import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary, ref

from diffusion.denoiser import Denoiser

STEPPING_OVER_SWAPPING = 10.0
"""A turn lasts so much longer than the swap it began with: swaps cost a tenth."""
LONGEST_S = 2.0
"""But no longer than this, even where a swap takes more than a fifth of a second."""


class Turns:
    """Who has waited longest is next. Where swaps cost nothing, a turn is one step."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._last_s: WeakKeyDictionary[Denoiser, float] = WeakKeyDictionary()
        # Weakly: a model that gives way is to be gone, even if it had the last turn.
        self._present: ref[Denoiser] | None = None
        self._until_s: float | None = None
        """None: the turn has not begun."""

    def next(self, waiting: Sequence[Denoiser]) -> Denoiser:
        """Whose step it is, of at least one."""
        over = self._until_s is not None and self._now_s() >= self._until_s
        present = self._present() if self._present else None
        if present is None or over or present not in waiting:
            present = min(waiting, key=lambda one: self._last_s.get(one, 0.0))
            self._present = ref(present)
            self._until_s = None
        return present

    def took(self, swap_s: float) -> None:
        """The one whose step it is has its weights on, and that took so long."""
        present = self._present() if self._present else None
        assert present is not None
        now_s = self._last_s[present] = self._now_s()
        if self._until_s is None:
            self._until_s = now_s + min(LONGEST_S, STEPPING_OVER_SWAPPING * swap_s)
