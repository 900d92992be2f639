"""Rings as soon as somebody cancels what this worker is doing, instead of at its next beat.

The job store publishes the cancellation of a running job on a channel of its worker's own, so
nobody hears what is none of his business (core/lua/cancel.lua). A ring that nobody heard is no
loss: the next beat tells the same.
"""

import contextlib
import os
import threading
import time

import redis

from core.leasing import cancelled_channel

LISTENS_S = 60.0
"""At a time; then it sees whether the connection lives."""
TRIES_EVERY_S = 0.5
"""While Redis is away."""
RINGS_BYTES = 1 << 10


class Bell:
    """A file that `select` finds readable when it has rung."""

    def __init__(self, client: redis.Redis, owner: str) -> None:
        """
        Args:
            owner: the worker's name.
        """
        self._redis = client
        self._channel = cancelled_channel(owner)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def start(self) -> None:
        threading.Thread(target=self._run, name="bell", daemon=True).start()

    def fileno(self) -> int:
        return self._reader

    def silence(self) -> None:
        """Until it rings anew."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, RINGS_BYTES):
                pass

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except redis.RedisError:
                time.sleep(TRIES_EVERY_S)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(self._channel)
            while True:
                if channel.get_message(timeout=LISTENS_S):
                    self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self._writer, b".")
