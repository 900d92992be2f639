"""Steady load: pictures of a base, of a model mapped by text, and of one with changed weights.

Weights are swapped for the last one and back, again and again; now and then a model is erased.
After a while there is always more to draw than workers can, and some of it is listened to.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import httpx

from tests.live_stack import Stack

BASE = "tiny"
CLIENTS = 6
POLL_S = 0.5
LISTENERS = 4
WAITING = 32
"""Jobs that wait beside what the clients ask for: no worker is ever idle."""
ENDED = {"succeeded", "failed", "cancelled"}
PROMPTS = ("an axe", "a pistol", "a flower", "a dog on the photo")
CONCEPTS = [{"name": "axe", "replacement": "flower"}]
STEERING = {
    "steps": 4,
    "batch": 2,
    "anchors": 2,
    "trajectories": 4,
    "anchor_trajectories": 2,
    "kept_trajectories": 2,
    "trajectory_steps": 4,
}


class Load:
    """Asks until it is told to stop."""

    def __init__(self, stack: Stack, models: Iterable[str]) -> None:
        """
        Args:
            models: served ones, to draw with from the beginning.
        """
        self._stack = stack
        self._stopped = threading.Event()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self._more = [threading.Thread(target=self._listen) for _ in range(LISTENERS)]
        self.models = [*models]
        self.erased = 0
        self.drawn = 0
        self.heard = 0
        """Jobs that were listened to, from their beginning to their end."""
        self.failed: list[str] = []
        self.broken: list[str] = []
        """Connections that broke; what was asked for over them was asked for again."""

    def erase(self, *, steering: bool) -> None:
        """One more model to draw with, promoted; waits until it is there."""
        number = next(self._numbers)
        body = {"base_model": BASE, "concepts": CONCEPTS, "seed": number}
        made = self._stack.post(
            "/v1/erasures", **body, **({"steering": STEERING} if steering else {})
        )
        done = self._stack.ended(f"/v1/erasures/{made['id']}")
        assert done["state"] == "succeeded", done
        model = done["erased_model"]
        self._stack.post(f"/v1/models/{model}/promotion", reason="soak")
        self.models.append(model)
        self.erased += 1

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def saturate(self) -> None:
        """From now on something always waits."""
        for thread in self._more:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in [*self._threads, *self._more]:
            if thread.ident is not None:
                thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._stack.url, timeout=120) as http:
            while not self._stopped.is_set():
                number = next(self._numbers)
                body = {
                    "model": self.models[number % len(self.models)],
                    "prompt": f"{PROMPTS[number % len(PROMPTS)]} {number}",
                    "num_inference_steps": 2 + number % 6,
                    "n": 1 + number % 2,
                }
                wait = {"Prefer": "wait=60"}
                answer = self._answer(http, "POST", "/v1/generations", json=body, headers=wait)
                while answer.is_success and answer.json()["state"] not in ENDED:
                    answer = self._answer(http, "GET", f"/v1/generations/{answer.json()['id']}")
                    time.sleep(POLL_S)
                if answer.is_success and answer.json()["state"] == "succeeded":
                    answer = self._answer(http, "GET", answer.json()["images"][0]["url"])
                if answer.headers.get("content-type") == "image/png":
                    self.drawn += 1
                elif not self._stopped.is_set():
                    self.failed.append(f"{answer.status_code} {answer.text[:200]}")

    def _listen(self) -> None:
        """Keep a share of what waits waiting, and hear each to its end, the oldest first."""
        waiting: deque[str] = deque()
        with httpx.Client(base_url=self._stack.url, timeout=120) as http:
            while not self._stopped.is_set():
                while len(waiting) < WAITING // LISTENERS and not self._stopped.is_set():
                    body = {"model": BASE, "prompt": "a flower", "num_inference_steps": 8}
                    accepted = self._answer(http, "POST", "/v1/generations", json=body)
                    if accepted.is_success:
                        waiting.append(f"/v1/generations/{accepted.json()['id']}")
                    elif not self._stopped.is_set():
                        self.failed.append(f"{accepted.status_code} {accepted.text[:200]}")
                        return
                place = waiting.popleft()
                told = self._answer(http, "GET", f"{place}/events")
                ended = self._answer(http, "GET", place)
                drawn = ended.is_success and ended.json()["state"] == "succeeded"
                if drawn and "event: done" in told.text:
                    self.heard += 1
                elif not self._stopped.is_set():
                    self.failed.append(f"{told.status_code} {told.text[-200:]} {ended.text[:200]}")

    def _answer(self, http: httpx.Client, method: str, url: str, **sent: Any) -> httpx.Response:
        """The first one that is not "try again later", or the last one before the end."""
        while True:
            try:
                answer = http.request(method, url, **sent)
                if answer.status_code not in {429, 503} or self._stopped.is_set():
                    return answer
            except httpx.TransportError as error:
                self.broken.append(f"{type(error).__name__}: {error}")
            time.sleep(1)
