"""Whose attempt counts when something goes wrong, and what becomes of the others."""

import contextlib
from collections.abc import Iterator, Sequence

import structlog

from core.errors import (
    AppError,
    ModelsUnavailable,
    RetryableError,
    StoreUnavailable,
    WeightsDiffer,
)
from core.jobs import Lease
from core.leasing import Leasing
from worker.held import Held
from worker.patience import Patience

log = structlog.get_logger()


class Blame:
    def __init__(self, leasing: Leasing, held: Held, patience: Patience) -> None:
        self._leasing = leasing
        self._held = held
        self._patience = patience

    @contextlib.contextmanager
    def answering_for(self, lease: Lease) -> Iterator[None]:
        """What hinders a job from being drawn ends it with the reason, or has it tried again."""
        with self.blaming([lease]):
            try:
                yield
            except WeightsDiffer:
                raise
            except (ModelsUnavailable, StoreUnavailable) as error:
                # Not the job's fault either: an outage may not use up its attempts.
                self._leasing.hand_back(lease, str(error))
                self._patience.failed()
            except RetryableError as error:
                self._leasing.try_again(lease, str(error))
            except AppError as error:
                log.warning("refused", job=lease.job_id, error=type(error).__name__)
                self._leasing.fail(lease, str(error))

    @contextlib.contextmanager
    def blaming(self, suspects: Sequence[Lease] | None) -> Iterator[None]:
        """After an error that may be the device's, the suspects' attempts count, nobody else's.

        Were none counted, a job that breaks devices would never end; were all, a broken device
        would end every job.

        Args:
            suspects: None: all that is held.
        """
        try:
            yield
        except StoreUnavailable:
            raise
        except Exception as error:
            held = self._held.leases
            for lease in held if suspects is None else suspects:
                why = f"its worker failed: {type(error).__name__}: {error}"
                self._leasing.try_again(lease, why)
            # Those that were given back above, or by a block within this one, are not ours now.
            for lease in [*held, *self._held.claimed]:
                self._leasing.hand_back(lease, "its worker failed at another job")
            raise
