"""Tells the rest of the installation which models this worker refuses; drawing goes on without."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog

from core.errors import StoreUnavailable, UntrustedModel
from core.refusals import Refusals
from worker import metrics

log = structlog.get_logger()

LOOK_EVERY_S = 5.0
"""Whether somebody called a model refused that this worker serves all the time."""


class RefusalRecord(Protocol):
    def refused(self, model_id: str, reason: str) -> None: ...

    def served(self, model_id: str) -> None: ...


class RefusalBoard:
    def __init__(
        self, refusals: Refusals, owner: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._refusals = refusals
        self._owner = owner
        self._now = now
        self._look_at: dict[str, float] = {}
        """Model -> when it is looked at again; a model that was refused here: at once."""

    def refused(self, model_id: str, reason: str) -> None:
        self._look_at.pop(model_id, None)
        # The job fails with the reason in any case.
        with contextlib.suppress(StoreUnavailable):
            self._refusals.note(model_id, reason, worker=self._owner)

    def served(self, model_id: str) -> None:
        """It passed every check, whether it was loaded now or earlier."""
        if self._now() < self._look_at.get(model_id, 0.0):
            return
        with contextlib.suppress(StoreUnavailable):
            self._refusals.end(model_id, worker=self._owner)
            self._look_at[model_id] = self._now() + LOOK_EVERY_S


@contextlib.contextmanager
def telling_refusals(model_id: str, record: RefusalRecord | None) -> Iterator[None]:
    """When what is done with a model inside finds it untrusted, that is told, and raised on."""
    try:
        yield
    except UntrustedModel as error:
        log.warning("model refused", model=model_id, reason=str(error))
        metrics.REFUSED.labels(model_id).inc()
        if record:
            record.refused(model_id, str(error))
        raise
