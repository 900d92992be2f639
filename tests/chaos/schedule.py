"""When faults strike, and what may be asked for until then."""

import random
import threading
from dataclasses import dataclass, field

LEAST_GAP_S = 1.0
"""Between two faults, when time runs out."""
SPREAD_OVER = 0.95
"""Of the time; the rest is for what had to wait in the end."""
PATIENCE_S = 15.0
"""How long a fault waits for something to strike before another one takes its turn."""


class Schedule:
    """Faults spread over a time: what is left of them over what is left of it.

    So a fault that had to wait costs those after it a little of their gaps, and nobody its place.
    """

    def __init__(
        self, faults: list[str], *, began: float, seconds: float, rng: random.Random
    ) -> None:
        """
        Args:
            faults: the kinds; the last one comes first.
            began: on the clock of every `now` below.
        """
        self.left = list(faults)
        self._until = began + SPREAD_OVER * seconds
        self._random = rng
        self._set_next(began)

    @property
    def kind(self) -> str:
        """Of the next one."""
        return self.left[-1]

    def is_due(self, now: float, *, ahead_s: float = 0.0) -> bool:
        return bool(self.left) and now >= self.strike_at - ahead_s

    def struck(self, now: float) -> None:
        self.left.pop()
        self._set_next(now)

    def missed(self, now: float) -> None:
        """There was nothing to strike; after some time another one takes its turn."""
        if now >= self.strike_at + PATIENCE_S:
            self.left.insert(0, self.left.pop())
            self.strike_at = now

    def _set_next(self, now: float) -> None:
        gap_s = max(LEAST_GAP_S, (self._until - now) / (len(self.left) + 1))
        # Now and then two come close together.
        self.strike_at = now + gap_s * self._random.uniform(0.3, 1.7)


@dataclass
class Pace:
    """How many jobs may be asked for by now: they come in waves, one for each fault."""

    jobs: int
    waves: int
    burst: int
    """How many all clients ask for at once."""
    released: int = 0
    more: int = 0
    """Jobs beyond the waves, so that there is something to strike."""
    in_calm: int = 0
    """Jobs beyond all of them, to be asked for when no fault comes any more."""
    calm: bool = False
    """Whether that is now."""
    over: threading.Event = field(default_factory=threading.Event)

    def may_ask(self, accepted: int) -> bool:
        """Raises StopIteration when no more are wanted."""
        if accepted >= self.jobs + self.more + self.in_calm or self.over.is_set():
            raise StopIteration
        return accepted < self._by_now()

    def ask_for_more(self, accepted: int) -> None:
        """One more burst for each client, if all that may be asked for was."""
        if accepted >= self._by_now():
            self.more += self.burst

    def _by_now(self) -> float:
        waves = self.jobs * self.released / self.waves + self.more
        return waves + self.in_calm if self.calm else waves
