"""Requests of a client that never gives up."""

import time
from typing import Literal

import httpx

from tests.chaos.journal import Cancel, Journal
from tests.crowding import crowding

POLL_S = 0.15
AWAY = {429, 503}
"""What a client may be told while the service cannot take its request."""


class Asking:
    """Repeats a request until it has an answer."""

    def __init__(self, base_url: str, journal: Journal) -> None:
        self.http = httpx.Client(base_url=base_url, timeout=20)
        self._journal = journal
        self._sent_at = 0.0
        """Unix seconds, of the last request."""

    def ask(
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
            self._sent_at = time.time()
            try:
                answer = self.http.request(method, path, json=body, headers=headers)
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

    def cancel(self, path: str) -> Cancel | None:
        """None of what had ended before."""
        answer = self.ask("DELETE", path, expected=200, or_too_late=409)
        if answer is None or answer.status_code != httpx.codes.OK:
            return None
        was: Literal["queued", "running"] = "running" if answer.json()["cancelling"] else "queued"
        return Cancel(self._sent_at, was, crowding())
