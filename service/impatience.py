"""Lets go of clients that open a connection and then send their request drop by drop, or never.

uvicorn waits for a request's head for ever. A few thousand such connections would use up the
process's file descriptors, and cost whoever opens them nothing.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Impatient(H11Protocol):
    """uvicorn's protocol, but the head of each request must arrive within `within_s` seconds."""

    within_s: float
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Idle: no head is complete. More of one does not buy more time.
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The beginning of a next head that came before the answer to the one before it.
        begun, _ = self.conn.trailing_data
        if begun and self.conn.their_state is h11.IDLE:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.within_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def impatient(within_s: float) -> type[Impatient]:
    """The protocol with its time, for uvicorn, which makes one for each connection."""

    class Timed(Impatient):
        pass

    Timed.within_s = within_s
    return Timed
