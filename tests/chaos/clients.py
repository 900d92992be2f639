"""Clients that ask for pictures, and write down what they were promised and what they saw."""

import contextlib
import io
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from tests.chaos.installation import MODEL

URL = "/v1/generations"
PROMPTS = ("an axe", "a pistol", "a flower", "a dog on the photo")
SEEDS = 4
STEPS = (4, 16, 30)
BURST = 4
CANCELLED_SHARE = 0.03
LISTENING_SHARE = 0.25
"""Of the jobs, those that are followed by server-sent events instead of polls."""
POLL_S = 0.15
ENDED = {"succeeded", "failed", "cancelled"}
AWAY = {429, 503}
"""What a client may be told while the service cannot take its request."""


@dataclass
class Order:
    """One request for one picture, and what became of it as its client saw it."""

    prompt: str
    seed: int
    steps: int
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_id: str = ""
    """Empty until it was accepted."""
    cancel_sent_at: float | None = None
    """Unix seconds, when the cancel was accepted."""
    cancelled_while: str = ""
    """The state it was in then."""
    state: str = ""
    picture: bytes | None = None
    heard: list[str] | None = None
    """The ids of the events it was told of; None of one that was polled."""


@dataclass
class Journal:
    """What all clients saw; many write at once."""

    orders: list[Order] = field(default_factory=list)
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

    def surprise(self, what: str) -> None:
        with self._lock:
            self.surprises.append(what)

    @property
    def accepted(self) -> int:
        return len(self.orders)


class Client:
    """One that never gives up: it repeats a request until it has an answer."""

    def __init__(
        self, base_url: str, journal: Journal, seed: int, *, may_ask: Callable[[int], bool]
    ) -> None:
        """
        Args:
            may_ask: whether one more job is wanted, of those accepted so far; ends the client
                by raising StopIteration.
        """
        self._http = httpx.Client(base_url=base_url, timeout=20)
        self._journal = journal
        self._random = random.Random(seed)
        self._may_ask = may_ask

    def run(self) -> None:
        with contextlib.suppress(StopIteration):
            while True:
                while not self._may_ask(self._journal.accepted):
                    time.sleep(POLL_S)
                asked = [self._order() for _ in range(BURST)]
                orders = [order for order in asked if order.job_id]
                for order in orders:
                    if self._random.random() < CANCELLED_SHARE:
                        self._cancel(order)
                for order in orders:
                    self.follow(order)
        self._http.close()

    def follow(self, order: Order) -> None:
        """Listen or poll until it has ended; fetch the picture."""
        if self._random.random() < LISTENING_SHARE:
            self._listen(order)
        while order.state not in ENDED:
            job = self._ask("GET", f"{URL}/{order.job_id}", expected=200)
            if job is None:
                return
            order.state = job.json()["state"]
            if order.state not in ENDED:
                time.sleep(POLL_S)
        if order.state == "succeeded":
            picture = self._ask("GET", f"{URL}/{order.job_id}/images/0", expected=200)
            order.picture = None if picture is None else picture.content

    def _listen(self, order: Order) -> None:
        """To its events, connecting again after the last one heard, until there are no more."""
        order.heard = []
        while True:
            headers = {"Last-Event-ID": order.heard[-1]} if order.heard else {}
            try:
                with self._http.stream(
                    "GET", f"{URL}/{order.job_id}/events", headers=headers
                ) as answer:
                    if answer.status_code == httpx.codes.NO_CONTENT:
                        return
                    for line in answer.iter_lines():
                        if line.startswith("id: "):
                            order.heard.append(line.removeprefix("id: "))
                    if answer.status_code not in {httpx.codes.OK, *AWAY}:
                        self._journal.surprise(f"events: {answer.status_code}")
                        return
            except httpx.TransportError:
                self._journal.silences += 1
            time.sleep(POLL_S)

    def _order(self) -> Order:
        order = Order(
            self._random.choice(PROMPTS),
            self._random.randrange(SEEDS),
            self._random.choice(STEPS),
        )
        body = {
            "model": MODEL,
            "prompt": order.prompt,
            "seed": order.seed,
            "num_inference_steps": order.steps,
        }
        answer = self._ask("POST", URL, body, key=order.key, expected=202)
        if answer is not None:
            order.job_id = answer.json()["id"]
            self._journal.accept(order)
        return order

    def _cancel(self, order: Order) -> None:
        at = time.time()
        answer = self._ask("DELETE", f"{URL}/{order.job_id}", expected=200, or_too_late=409)
        if answer is not None and answer.status_code == httpx.codes.OK:
            order.cancel_sent_at = at
            order.cancelled_while = "running" if answer.json()["cancelling"] else "queued"

    def _ask(
        self,
        method: str,
        path: str,
        body: dict | None = None,
        *,
        key: str = "",
        expected: int,
        or_too_late: int = 0,
    ) -> httpx.Response | None:
        """The expected answer, however often it takes; None after one that should not be."""
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            try:
                answer = self._http.request(method, path, json=body, headers=headers)
            except httpx.TransportError:
                self._journal.silences += 1
                time.sleep(POLL_S)
                continue
            if answer.status_code in {expected, or_too_late}:
                return answer
            if answer.status_code in AWAY and "Retry-After" in answer.headers:
                self._journal.refusals += 1
                time.sleep(POLL_S)
                continue
            self._journal.surprise(f"{method} {path}: {answer.status_code} {answer.text[:400]}")
            return None


def pixels(picture: bytes) -> np.ndarray:
    """(h, w, 3) of 8 bits, as int16: the file around them names the job, so it differs."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=np.int16)
