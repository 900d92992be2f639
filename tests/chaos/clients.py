"""Clients that ask for pictures, and write down what they were promised and what they saw."""

import contextlib
import io
import random
import time

import httpx
import numpy as np
from PIL import Image

from tests.chaos.asking import AWAY, POLL_S, Asking
from tests.chaos.journal import Journal, Order
from tests.chaos.schedule import Pace
from tests.chaos.variants import CHANGED, MAPPED, MODEL

URL = "/v1/generations"
MODELS = {MODEL: 4, MAPPED: 1, CHANGED: 1}
"""Model -> its share of the orders."""
PROMPTS = ("an axe", "a pistol", "a flower", "a dog on the photo")
SEEDS = 4
STEPS = (4, 16, 30)
BURST = 4
CANCELLED_SHARE = 0.03
CANCELLED_SHARE_IN_CALM = 0.5
"""When no fault is near: how long a cancel takes can be judged then."""
LISTENING_SHARE = 0.25
"""Of the jobs, those that are followed by server-sent events instead of polls."""
ENDED = {"succeeded", "failed", "cancelled"}


class Client:
    """Orders pictures in bursts, and follows each to its end."""

    def __init__(self, base_url: str, journal: Journal, seed: int, pace: Pace) -> None:
        self._asking = Asking(base_url, journal)
        self._journal = journal
        self._random = random.Random(seed)
        self._pace = pace

    def run(self) -> None:
        with contextlib.suppress(StopIteration):
            while True:
                while not self._pace.may_ask(self._journal.accepted):
                    time.sleep(POLL_S)
                asked = [self._order() for _ in range(BURST)]
                orders = [order for order in asked if order.job_id]
                share = CANCELLED_SHARE_IN_CALM if self._pace.calm else CANCELLED_SHARE
                for order in orders:
                    if self._random.random() < share:
                        order.cancel = self._asking.cancel(f"{URL}/{order.job_id}")
                for order in orders:
                    self.follow(order)
        self._asking.http.close()

    def follow(self, order: Order) -> None:
        """Listen or poll until it has ended; fetch the picture."""
        if self._random.random() < LISTENING_SHARE:
            self._listen(order)
        while order.state not in ENDED:
            job = self._asking.ask("GET", f"{URL}/{order.job_id}", expected=200)
            if job is None:
                return
            order.state = job.json()["state"]
            if order.state not in ENDED:
                time.sleep(POLL_S)
        if order.state == "succeeded":
            picture = self._asking.ask("GET", f"{URL}/{order.job_id}/images/0", expected=200)
            order.picture = None if picture is None else picture.content

    def _listen(self, order: Order) -> None:
        """To its events, connecting again after the last one heard, until there are no more."""
        order.heard = []
        while True:
            headers = {"Last-Event-ID": order.heard[-1]} if order.heard else {}
            try:
                with self._asking.http.stream(
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
        (model,) = self._random.choices(tuple(MODELS), tuple(MODELS.values()))
        order = Order(
            model,
            self._random.choice(PROMPTS),
            self._random.randrange(SEEDS),
            self._random.choice(STEPS),
        )
        body = {
            "model": order.model,
            "prompt": order.prompt,
            "seed": order.seed,
            "num_inference_steps": order.steps,
        }
        answer = self._asking.ask("POST", URL, body, key=order.key, expected=202)
        if answer is not None:
            order.job_id = answer.json()["id"]
            self._journal.accept(order)
        return order


def pixels(picture: bytes) -> np.ndarray:
    """(h, w, 3) of 8 bits, as int16: the file around them names the job, so it differs."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=np.int16)
