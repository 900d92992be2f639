"""A client that orders erased models, one after the other."""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.asking import POLL_S, Asking
from tests.chaos.clients import ENDED
from tests.chaos.journal import ErasureOrder, Journal
from tests.chaos.variants import MODEL
from tests.soak.load import CONCEPTS, STEERING

URL = "/v1/erasures"
SEEDS = 2
"""So few that the same model is ordered again and again, and can be compared."""
CANCELLED_EVERY = 5
"""One of so many, whichever, is cancelled; of fewer, where fewer are ordered."""
CANCELLED_WITHIN_S = 10.0
"""After it was accepted, at any moment: about as long as one takes."""


@dataclass
class ErasurePace:
    """How many erasures may be asked for by now: evenly, and more while a fault waits for one."""

    erasures: int
    began: float
    seconds: float
    wanted: bool = False
    """Whether a fault waits for a training to strike."""
    finished: bool = False
    """Whether no fault will come any more."""
    over: threading.Event = field(default_factory=threading.Event)

    def may_ask(self, asked: int, now: float) -> bool:
        share = min(1.0, (now - self.began) / self.seconds)
        return self.wanted or asked < math.ceil(self.erasures * share)

    def ends(self, asked: int) -> bool:
        return self.over.is_set() or (self.finished and asked >= self.erasures)


class ErasureClient:
    """Half of its models with stage 2; some are cancelled."""

    def __init__(
        self,
        base_url: str,
        journal: Journal,
        seed: int,
        pace: ErasurePace,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asking = Asking(base_url, journal)
        self._journal = journal
        self._random = random.Random(seed)
        self._pace = pace
        self._clock = clock
        self._every = max(2, min(CANCELLED_EVERY, pace.erasures))
        self._next_cancelled = -1

    def run(self) -> None:
        asked = 0
        while not self._pace.ends(asked):
            if self._pace.may_ask(asked, self._clock()):
                order = self._order(steered=asked % 2 == 1)
                if order.job_id:
                    self._follow(order, cancel_at=self.cancel_at(asked))
                asked += 1
            else:
                time.sleep(POLL_S)
        self._asking.http.close()

    def cancel_at(self, number: int) -> float:
        """On the clock; never, of most."""
        if number % self._every == 0:
            self._next_cancelled = number + self._random.randrange(self._every)
        if number != self._next_cancelled:
            return math.inf
        return self._clock() + self._random.uniform(0.0, CANCELLED_WITHIN_S)

    def _order(self, *, steered: bool) -> ErasureOrder:
        order = ErasureOrder(self._random.randrange(SEEDS), steered)
        body = {"base_model": MODEL, "concepts": CONCEPTS, "seed": order.seed}
        if steered:
            body["steering"] = STEERING
        answer = self._asking.ask("POST", URL, body, key=order.key, expected=202)
        if answer is not None:
            order.job_id = answer.json()["id"]
            self._journal.accept_erasure(order)
        return order

    def _follow(self, order: ErasureOrder, *, cancel_at: float) -> None:
        while order.state not in ENDED and not self._pace.over.is_set():
            if self._clock() >= cancel_at:
                cancel_at = math.inf
                order.cancel = self._asking.cancel(f"{URL}/{order.job_id}")
            job = self._asking.ask("GET", f"{URL}/{order.job_id}", expected=200)
            if job is None:
                return
            order.state = job.json()["state"]
            order.model = job.json()["erased_model"] or ""
            if order.state not in ENDED:
                time.sleep(POLL_S)
