"""Connections to Redis: how long they try, and what is raised when it does not answer."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from core.errors import StoreUnavailable

SILENCE_S = 5.0
"""A server that says nothing for this long is taken to be gone."""
FOR_NOW = ("MISCONF", "BUSY ", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
"""Words of answers that are others later: a full disk, a script that runs on and on, replicas or a
master that are away. They come within a script's own error, too. Of a full memory, and of a
replica, redis-py has types."""


class Silence:
    """A breaker: while a server says nothing, one caller at a time waits to hear whether it still
    does, and the others fail at once.

    Were each to wait, every thread of a process would.
    """

    def __init__(self, rest_s: float) -> None:
        """
        Args:
            rest_s: nobody asks for this long after a silence; 0: everybody always waits.
        """
        self._rest_s = rest_s
        self._lock = threading.Lock()
        self._ask_again_at: float | None = None

    def ask(self) -> None:
        """Raises redis.TimeoutError when it is not the caller's turn to wait."""
        if self._ask_again_at is None:
            return
        with self._lock:
            now = time.monotonic()
            if self._ask_again_at is not None and now < self._ask_again_at:
                raise redis.TimeoutError("it said nothing a moment ago")
            # Should this caller never come back, another one asks.
            self._ask_again_at = now + 2 * SILENCE_S

    def heard(self, error: Exception | None) -> None:
        """What came of asking."""
        if self._rest_s and isinstance(error, redis.TimeoutError):
            with self._lock:
                self._ask_again_at = time.monotonic() + self._rest_s
        elif error is None:
            self._ask_again_at = None


class PatientFor(Retry):
    """Tries again until `seconds` are over, however long each try takes.

    redis-py retries a command and, inside it, the handshake of a new connection; counting
    tries would multiply the two.
    """

    def __init__(self, seconds: float, silence: Silence) -> None:
        super().__init__(ExponentialBackoff(cap=0.1, base=0.01), retries=-1)
        self._seconds = seconds
        self._silence = silence
        self._trying = threading.local()

    def call_with_retry(self, do: Any, fail: Any, *args: Any, **options: Any) -> Any:
        outermost = not hasattr(self._trying, "until")
        if outermost:
            self._silence.ask()
            self._trying.until = time.monotonic() + self._seconds

        def fail_in_time(error: Exception, *rest: Any) -> None:
            self._silence.heard(error)
            fail(error, *rest)
            if time.monotonic() > self._trying.until:
                raise error

        try:
            answer = super().call_with_retry(do, fail_in_time, *args, **options)
        finally:
            if outermost:
                del self._trying.until
        self._silence.heard(None)
        return answer

    def __deepcopy__(self, _: dict[int, Any]) -> "PatientFor":
        # Each connection has one of these; what one has found out is true for all.
        return PatientFor(self._seconds, self._silence)


def connect(url: str, *, retry_s: float = 1.0, rest_s: float = 0.0) -> redis.Redis:
    """A client that tries again for about `retry_s` seconds before it raises.

    An API process wants to answer 503 soon; a worker would rather wait for the broker's restart.

    Args:
        rest_s: see `Silence`; for clients that many threads share.
    """
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        health_check_interval=15,
        socket_timeout=SILENCE_S,
        socket_connect_timeout=SILENCE_S,
        retry=PatientFor(retry_s, Silence(rest_s)),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError],
    )


@contextmanager
def answering() -> Iterator[None]:
    """Redis errors that waiting may cure become StoreUnavailable."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, NoScriptError) as error:
        # A script that was loaded a moment ago is missing: Redis has started anew in between, as
        # it does again and again while its disk is full.
        raise StoreUnavailable("the job store does not answer; try again shortly") from error
    except redis.ResponseError as error:
        full = redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError
        if isinstance(error, full) or any(word in str(error) for word in FOR_NOW):
            raise StoreUnavailable("the job store takes no writes now; try again later") from error
        raise
