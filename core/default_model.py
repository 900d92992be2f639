"""Which model the name `default` means: as an operator pointed it, else as the settings say.

    default_model    list of model ids, newest first: where it was pointed, and where before

Asked at every request, so for moments it is answered from memory: a process that points it
elsewhere goes by that at once, all others within LOOK_EVERY_S.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import structlog

from core.errors import DefaultMoved, NeverPointed, StoreUnavailable
from core.redis_connection import answering

KEY = "default_model"
KEPT = 20
"""Places to roll back to; before the oldest of them there is the one of the settings."""
LOOK_EVERY_S = 0.5
LOOK_AGAIN_S = 5.0
"""After an outage of Redis was noticed; meanwhile no job is accepted anyway."""

log = structlog.get_logger(__name__)


class DefaultModel:
    """While Redis does not answer, `current` is what this process has seen last.

    Before it has answered once, that is the setting, and whoever asks has it look again.
    """

    def __init__(
        self, client: redis.Redis, *, setting: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = client
        self._setting = setting
        self._now = now
        self._current = setting
        self._look_at = 0.0
        self._has_seen = False
        self._looking = threading.Lock()

    def current(self) -> str:
        """The id of a model; whether that is there, and served, is another question."""
        # Whoever comes while the first look is under way waits for it: the setting may be long
        # out of date.
        wait = not self._has_seen
        if self._now() >= self._look_at and self._looking.acquire(blocking=wait):
            try:
                if self._now() >= self._look_at:  # nobody has looked meanwhile
                    self._seen(self.history()[0])
            except StoreUnavailable as error:
                log.warning("not read what `default` means", error=str(error))
                if self._has_seen:
                    self._look_at = self._now() + LOOK_AGAIN_S
            finally:
                self._looking.release()
        return self._current

    def history(self) -> list[str]:
        """What it means, then what it meant before, newest first; the setting ends it.

        Raises:
            StoreUnavailable.
        """
        with answering():
            pointed: Any = self._redis.lrange(KEY, 0, -1)
        return [*pointed, self._setting]

    def former(self) -> str:
        """What it means once it is rolled back.

        Raises:
            StoreUnavailable.
            NeverPointed: it means what the settings say, and nothing was before.
        """
        history = self.history()
        if len(history) == 1:
            raise NeverPointed(
                f"`default` was never pointed elsewhere: it means {self._setting}, as "
                "TRCE_DEFAULT_MODEL says"
            )
        return history[1]

    def point(self, model_id: str) -> None:
        """Again to the same one is no second step back.

        Raises:
            StoreUnavailable.
        """

        def step(pipe: redis.client.Pipeline) -> None:
            newest: Any = self._redis.lindex(KEY, 0)
            pipe.multi()
            if newest != model_id:
                pipe.lpush(KEY, model_id)
                pipe.ltrim(KEY, 0, KEPT - 1)

        with answering():
            self._redis.transaction(step, KEY)
        self._seen(model_id)

    def roll_back(self, to: str) -> None:
        """
        Args:
            to: the `former` that the caller has looked at.

        Raises:
            StoreUnavailable, NeverPointed.
            DefaultMoved: somebody pointed it elsewhere meanwhile.
        """

        def step(pipe: redis.client.Pipeline) -> None:
            if self.former() != to:
                raise DefaultMoved("`default` was pointed elsewhere a moment ago; look again")
            pipe.multi()
            pipe.lpop(KEY)

        with answering():
            self._redis.transaction(step, KEY)
        self._seen(to)

    def _seen(self, model_id: str) -> None:
        self._current = model_id
        self._has_seen = True
        self._look_at = self._now() + LOOK_EVERY_S
