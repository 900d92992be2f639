"""Tells the rest of the installation which models this worker refuses; drawing goes on without."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import structlog

from core.errors import StoreUnavailable, UntrustedModel
from core.refusals import Refusals
from worker import metrics

log = structlog.get_logger()


class RefusalRecord(Protocol):
    def refused(self, model_id: str, reason: str) -> None: ...

    def loaded(self, model_id: str) -> None: ...


class RefusalBoard:
    def __init__(self, refusals: Refusals, owner: str) -> None:
        self._refusals = refusals
        self._owner = owner

    def refused(self, model_id: str, reason: str) -> None:
        # The job fails with the reason in any case.
        with contextlib.suppress(StoreUnavailable):
            self._refusals.note(model_id, reason, worker=self._owner)

    def loaded(self, model_id: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._refusals.clear(model_id)


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
