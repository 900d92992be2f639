"""Models that this host lacks come from the bucket while others are drawn.

The jobs for one that is on its way wait in their queue, where they can be cancelled and another
host may take them, and no other job waits for them.
"""

import threading
import time
from collections.abc import Callable

import structlog

from core.errors import ModelsUnavailable
from core.registry import ModelRegistry
from worker.patience import Patience

log = structlog.get_logger()

AT_ONCE = 2
"""Downloads: more would share one line, and each be there later."""


class Fetches:
    """Belongs to the thread that claims; each model is fetched in a thread of its own."""

    def __init__(
        self, registry: ModelRegistry, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._now = now
        self._under_way: dict[str, _Fetch] = {}
        self._lines = threading.Semaphore(AT_ONCE)

    @property
    def awaited(self) -> list[str]:
        """Models whose jobs are not to be claimed: on their way, or not to be had for now."""
        return [model_id for model_id, fetch in self._under_way.items() if fetch.waits]

    def wait_for(self, model_id: str) -> str | None:
        """Why a model cannot be drawn with yet; None: it is here, as is its base.

        The first to ask has it fetched.

        Raises:
            AppError: what speaks against the model; it is fetched anew for the next who asks.
        """
        if self._registry.is_at_hand(model_id):
            self._under_way.pop(model_id, None)
            return None
        fetch = self._under_way.setdefault(model_id, _Fetch(self._now))
        if fetch.refusal is not None:
            del self._under_way[model_id]
            raise fetch.refusal
        if not fetch.waits:
            fetch.begin(lambda: self._fetch(model_id))
        return f"model {model_id} is being fetched" + (fetch.trouble and f": {fetch.trouble}")

    def _fetch(self, model_id: str) -> None:
        with self._lines:
            began_s = time.monotonic()
            manifest = self._registry.get(model_id)
            if manifest.edit is not None:
                self._registry.get(manifest.edit.base_model)
            log.info("at hand", model=model_id, seconds=round(time.monotonic() - began_s, 1))


class _Fetch:
    """One model's. What the thread finds out is read when it has ended."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.trouble = ""
        """Why it could not be had the last time."""
        self.refusal: Exception | None = None
        self._patience = Patience(now=now)
        self._thread: threading.Thread | None = None

    @property
    def waits(self) -> bool:
        return self._patience.waits or (self._thread is not None and self._thread.is_alive())

    def begin(self, work: Callable[[], None]) -> None:
        # A daemon: a worker that is told to stop does not wait for what it will not use.
        self._thread = threading.Thread(target=self._run, args=(work,), name="fetch", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ModelsUnavailable as error:
            log.warning("cannot be fetched", reason=str(error))
            self.trouble = str(error)
            self._patience.failed()
        except Exception as error:  # noqa: BLE001  (raised where somebody can answer for it)
            self.refusal = error
