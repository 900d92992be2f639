"""How many rows one pass of a UNet or a VAE takes, for each size of latents.

A limit that proved too high is lowered at once. It rises again by one guided picture at a time,
after many passes that it cut, and that fitted: what took the memory may have gone since.
"""

from collections.abc import Callable
from dataclasses import dataclass

Sides = tuple[int, int]
"""Height and width of latents."""

ROWS_MORE = 2
"""Those of one guided picture."""
PATIENCE = 100
"""Passes in a row that a limit must cut before a higher one is tried."""
LONGEST_PATIENCE = 6400
"""It is doubled each time that the higher one does not fit."""


@dataclass
class _Limit:
    rows: int
    """As far as memory goes."""
    gaining: int | None = None
    """Beyond how many a pass gains nothing; None: more were always better, so far."""
    asked: int = 0
    """The most rows for which that was found out."""
    cut: int = 0
    """Passes in a row that could have had more rows, were it not for this limit."""
    patience: int = PATIENCE
    before: int | None = None
    """While a higher one is tried: what it was."""

    @property
    def of_pass(self) -> int:
        return self.rows if self.gaining is None else min(self.rows, self.gaining)

    def cuts(self, waiting: int) -> bool:
        """Of so many rows more would be drawn, and gain something, were there memory."""
        return self.rows < waiting and (self.gaining is None or self.rows < self.gaining)


class BatchLimits:
    def __init__(
        self,
        most: int = 32,
        *,
        found: Callable[[Sides], int | None] = lambda _: None,
        now: Callable[[Sides], int | None] = lambda _: None,
        fitting: Callable[[Sides], int | None] = lambda _: None,
        remember: Callable[[Sides, int], None] = lambda _sides, _rows: None,
        fitted: Callable[[Sides, int], None] = lambda _sides, _rows: None,
        worthwhile: Callable[[Sides, int], int | None] = lambda _sides, _rows: None,
    ) -> None:
        """
        Args:
            most: rows, whatever else is known; a guided picture takes two.
            found: what is known of a size at first, such as limits that were lowered before.
            now: what memory holds, asked before each pass, for a device that kills whoever takes
                more; None: nobody knows.
            fitting: what memory should hold now: a lowered limit rises no further.
            remember: is told of limits that have proved too high, and what they are now.
            fitted: is told of limits that have risen again, and what they are now.
            worthwhile: beyond how many rows, of so many that wait, a pass gains nothing; None:
                all of them are worth having. Finding out may take passes of its own.
        """
        self._most = max(2, most)
        self._found = found
        self._now = now
        self._fitting = fitting
        self._remember = remember
        self._fitted = fitted
        self._worthwhile = worthwhile
        self._limits: dict[Sides, _Limit] = {}

    def rows(self, sides: Sides, waiting: int) -> int:
        """Of the next pass, where so many rows wait for it; asked before each one."""
        limit = self._limit(sides)
        if limit.before is not None:
            # The pass that tried it was drawn: nobody has lowered it since.
            limit.before = None
            self._fitted(sides, limit.rows)
        if limit.cuts(waiting):
            limit.cut += 1
            if limit.cut > limit.patience:
                self._try_more(sides, limit)
        wanted = min(waiting, limit.of_pass)
        if wanted > limit.asked:
            limit.asked = wanted
            limit.gaining = self._worthwhile(sides, wanted) or limit.gaining
        return min(limit.of_pass, self._now(sides) or limit.of_pass)

    def lower(self, sides: Sides, rows: int) -> None:
        """The last pass did not fit; one of `rows` may."""
        limit = self._limit(sides)
        if limit.before is None:
            limit.rows = rows
        else:
            limit.rows, limit.before = limit.before, None
            limit.patience = min(2 * limit.patience, LONGEST_PATIENCE)
        limit.cut = 0
        self._remember(sides, limit.rows)

    def _limit(self, sides: Sides) -> _Limit:
        if sides not in self._limits:
            self._limits[sides] = _Limit(min(self._most, self._found(sides) or self._most))
        return self._limits[sides]

    def _try_more(self, sides: Sides, limit: _Limit) -> None:
        limit.cut = 0
        most = min(self._most, self._fitting(sides) or self._most)
        if limit.rows < most:
            limit.before = limit.rows
            limit.rows = min(most, limit.rows + ROWS_MORE)
