"""The newest manifest of each model that any process has seen, so that no older one counts again.

    model_serials    sorted set: model id -> the highest serial of its manifest

An old manifest is signed as well as a new one: whoever may write to the folder of models could put
back the manifest of a model that was retired since. Its serial gives it away.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import structlog

from core.errors import StoreUnavailable
from core.redis_connection import answering

KEY = "model_serials"
LOOK_EVERY_S = 0.5
"""How long a status may be out of date that another process gave a model."""
LOOK_AGAIN_S = 5.0
"""After an outage of Redis was noticed; meanwhile nothing can be served anyway."""

log = structlog.get_logger(__name__)


class StatusSerials:
    """While Redis does not answer, judges by what this process has seen itself."""

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._now = now
        self._known: dict[str, int] = {}
        self._look_at = 0.0
        self._looking = threading.Lock()
        self._keeping = threading.Lock()

    def newest(self, model_id: str) -> int:
        """The highest serial that was seen of a model; 0: none."""
        self._look()
        return self._known.get(model_id, 0)

    def note(self, model_id: str, serial: int) -> None:
        """A manifest with this serial is signed by a trusted key: lower ones are out of date."""
        if serial <= self._known.get(model_id, 0):
            return
        self._keep({model_id: serial})
        try:
            self._send({model_id: serial})
        except StoreUnavailable:
            # Sent with the next look that succeeds.
            self._look_at = self._now() + LOOK_AGAIN_S

    def _look(self) -> None:
        if self._now() < self._look_at or not self._looking.acquire(blocking=False):
            return
        try:
            with answering():
                found: Any = self._redis.zrange(KEY, 0, -1, withscores=True)
            theirs = {name: int(score) for name, score in found}
            # A copy: other threads note what they see meanwhile.
            ours = {
                name: serial
                for name, serial in self._known.copy().items()
                if serial > theirs.get(name, 0)
            }
            self._keep(theirs)
            if ours:
                self._send(ours)
            self._look_at = self._now() + LOOK_EVERY_S
        except StoreUnavailable as error:
            log.warning("no serials of models", error=str(error))
            self._look_at = self._now() + LOOK_AGAIN_S
        finally:
            self._looking.release()

    def _keep(self, serials: dict[str, int]) -> None:
        with self._keeping:
            for name, serial in serials.items():
                self._known[name] = max(serial, self._known.get(name, 0))

    def _send(self, serials: dict[str, int]) -> None:
        with answering():
            self._redis.zadd(KEY, serials, gt=True)
