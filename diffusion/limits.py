"""How many rows one UNet pass takes, for each size of latents."""

from collections.abc import Callable

Sides = tuple[int, int]
"""Height and width of latents."""


class BatchLimits:
    def __init__(
        self,
        most: int = 32,
        *,
        found: Callable[[Sides], int | None] = lambda _: None,
        remember: Callable[[Sides, int], None] = lambda _sides, _rows: None,
        worthwhile: Callable[[Sides, int], int | None] = lambda _sides, _rows: None,
    ) -> None:
        """
        Args:
            most: rows, where nothing else is known; a guided picture takes two.
            found: what is known of a size, such as what fits into memory.
            remember: is told of limits that have proved too high, and what they are now.
            worthwhile: beyond how many rows, of so many that wait, a pass gains nothing; None:
                all of them are worth having. Finding out may take passes of its own.
        """
        self._most = max(2, most)
        self._found = found
        self._remember = remember
        self._worthwhile = worthwhile
        self._rows: dict[Sides, int] = {}
        self._asked: dict[Sides, int] = {}

    def rows(self, sides: Sides, waiting: int) -> int:
        """Of one pass, where so many rows wait for it."""
        if sides not in self._rows:
            self._rows[sides] = min(self._most, self._found(sides) or self._most)
        fit = self._rows[sides]
        wanted = min(waiting, fit)
        if wanted > self._asked.get(sides, 0):
            self._asked[sides] = wanted
            self._rows[sides] = min(fit, self._worthwhile(sides, wanted) or fit)
        return self._rows[sides]

    def lower(self, sides: Sides, rows: int) -> None:
        """More than `rows` do not fit."""
        self._rows[sides] = rows
        self._remember(sides, rows)
