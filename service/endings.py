"""Tells those who wait for a job that it has ended, as soon as it has.

The job store publishes the id of every job that ends (core/lua/prelude.lua). One thread of the
process listens, and rings whoever waits for that job. A message that nobody heard is lost: so
everybody is rung when it begins to listen again, and whoever waits looks for himself now and then.
When the process is to close, everybody is rung as well.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import redis

from core.job_news import ENDED

LOOKS_EVERY_S = 0.2
"""Whether it is to stop, or the process to close."""
TRIES_EVERY_S = 0.5
"""While Redis is away."""


class Endings:
    def __init__(self, client: redis.Redis, closing: threading.Event) -> None:
        """
        Args:
            closing: set when nobody is to wait any longer.
        """
        self._redis = client
        self._closing = closing
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, within_s: float = 5.0) -> None:
        """Returns when the thread has ended, or after `within_s` seconds: it is a daemon."""
        self._stopped.set()
        self._thread.join(within_s)

    @contextlib.contextmanager
    def of(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set when the job ends, within the block."""
        one = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._waiting.setdefault(job_id, []).append(one)
        try:
            yield one[1]
        finally:
            with self._lock:
                self._waiting[job_id].remove(one)
                if not self._waiting[job_id]:
                    del self._waiting[job_id]

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except redis.RedisError:
                self._stopped.wait(TRIES_EVERY_S)
                self._ring_if_closing()

    def _listen(self) -> None:
        with self._redis.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(ENDED)
            while not self._stopped.is_set():
                message = channel.get_message(timeout=LOOKS_EVERY_S)
                if message is not None and message["type"] == "subscribe":
                    # It listens from now on; what ended before, while Redis was away, was missed.
                    self._ring(*self._awaited())
                elif message is not None:
                    self._ring(message["data"])
                self._ring_if_closing()

    def _ring_if_closing(self) -> None:
        if self._closing.is_set():
            self._ring(*self._awaited())

    def _awaited(self) -> list[str]:
        with self._lock:
            return list(self._waiting)

    def _ring(self, *job_ids: str) -> None:
        with self._lock:
            waiting = [one for job_id in job_ids for one in self._waiting.get(job_id, ())]
        for loop, event in waiting:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(event.set)
