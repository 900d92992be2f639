"""The newest manifest of each model that any process has seen, so that no older one counts again.

    model_serials          sorted set: model id -> the highest serial of its manifest
    model_changing:<id>    while a host changes that manifest

An old manifest is signed as well as a new one: whoever may write to the folder of models could put
back the manifest of a model that was retired since. Its serial gives it away.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
import structlog
from redis.exceptions import LockError

from core.errors import ModelChanged, StoreUnavailable
from core.redis_connection import answering

KEY = "model_serials"
LOOK_EVERY_S = 0.5
"""How long a status may be out of date that another process gave a model."""
LOOK_AGAIN_S = 5.0
"""After an outage of Redis was noticed; what was seen before counts meanwhile."""

CHANGE_S = 30.0
"""A change of a manifest that takes longer is that of a host that died, or of one that may find
its change gone."""

log = structlog.get_logger(__name__)


class StatusSerials:
    """While Redis does not answer, judges by what this process has seen itself.

    Before it has answered once, nothing was seen, and nothing is judged.
    """

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._now = now
        self._known: dict[str, int] = {}
        self._look_at = 0.0
        self._has_looked = False
        self._looking = threading.Lock()
        self._keeping = threading.Lock()

    def newest(self, model_id: str) -> int:
        """The highest serial that was seen of a model; 0: none.

        Raises:
            StoreUnavailable: Redis has not told this process anything yet.
        """
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

    @contextmanager
    def changing(self, model_id: str, serial: int) -> Iterator[None]:
        """Within, no other host changes the model, whose newest manifest has this serial.

        Raises:
            ModelChanged: there is a newer one, or others change it all the time.
            StoreUnavailable: what others do cannot be known.
        """
        name = f"model_changing:{model_id}"
        lock = self._redis.lock(name, timeout=CHANGE_S, blocking_timeout=CHANGE_S)
        with answering():
            if not lock.acquire():
                raise ModelChanged(f"model {model_id} is being changed on another host")
        try:
            with answering():
                newest: Any = self._redis.zscore(KEY, model_id)
            if newest is not None and newest > serial:
                self._keep({model_id: int(newest)})
                raise ModelChanged(f"model {model_id} was changed on another host; try again")
            yield
        finally:
            with suppress(StoreUnavailable, LockError), answering():  # then it lapses
                lock.release()

    def close(self) -> None:
        """Let go of the connections to Redis."""
        self._redis.close()

    @property
    def _is_up_to_date(self) -> bool:
        return self._has_looked and self._now() < self._look_at

    def _look(self) -> None:
        """Raises StoreUnavailable: no look has succeeded yet; whoever comes next looks again."""
        if self._is_up_to_date:
            return
        # Whoever comes before the first look has ended waits for it: nothing would be known yet,
        # and so nothing be out of date.
        if not self._looking.acquire(blocking=not self._has_looked):
            return
        try:
            if self._is_up_to_date:
                return  # another one has looked meanwhile
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
            self._has_looked = True
            if ours:
                self._send(ours)
            self._look_at = self._now() + LOOK_EVERY_S
        except StoreUnavailable as error:
            if not self._has_looked:
                raise
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
