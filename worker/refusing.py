"""Tells the rest of the installation which models this worker refuses; drawing goes on without."""

import contextlib

from core.errors import StoreUnavailable
from core.refusals import Refusals


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
