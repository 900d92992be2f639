"""What clients were promised, and what they saw of it."""

import threading
import uuid
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Cancel:
    """One that was accepted."""

    sent_at: float
    """Unix seconds; of the request that was answered, where it had to be repeated."""
    while_it_was: Literal["queued", "running"]
    """By the answer."""
    crowding: float = 1.0
    """Of the machine then; see `tests.crowding`."""


@dataclass
class Order:
    """One request for one picture, and what became of it as its client saw it."""

    model: str
    prompt: str
    seed: int
    steps: int
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_id: str = ""
    """Empty until it was accepted."""
    cancel: Cancel | None = None
    state: str = ""
    picture: bytes | None = None
    heard: list[str] | None = None
    """The ids of the events it was told of; None of one that was polled."""


@dataclass
class ErasureOrder:
    """One request for one erased model, and what became of it as its client saw it."""

    seed: int
    steered: bool
    """Whether stage 2 follows."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_id: str = ""
    cancel: Cancel | None = None
    state: str = ""
    model: str = ""


@dataclass
class Journal:
    """What all clients saw; many write at once."""

    orders: list[Order] = field(default_factory=list)
    erasures: list[ErasureOrder] = field(default_factory=list)
    refusals: int = 0
    """Of requests that were repeated: 429, 503."""
    silences: int = 0
    """Of requests that were repeated: connections that broke."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no client should ever get."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def accept(self, order: Order) -> None:
        with self._lock:
            self.orders.append(order)

    def accept_erasure(self, order: ErasureOrder) -> None:
        with self._lock:
            self.erasures.append(order)

    def surprise(self, what: str) -> None:
        with self._lock:
            self.surprises.append(what)

    @property
    def accepted(self) -> int:
        return len(self.orders)

    @property
    def job_ids(self) -> list[str]:
        """Of everything that was accepted."""
        return [order.job_id for order in [*self.orders, *self.erasures]]
