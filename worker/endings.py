"""How a worker lets go of generations: stored, stopped, refused, given up or handed back."""

import structlog

from core.errors import (
    AppError,
    LeaseLost,
    PicturesUnavailable,
    RetryableError,
    StoreUnavailable,
    UntrustedModel,
)
from core.leasing import Leasing
from diffusion.denoiser import Denoiser
from worker import metrics
from worker.blame import Blame
from worker.drawing import Drawing, finished_by_now, result_of
from worker.heartbeat import Heartbeat
from worker.held import Held
from worker.marks import LATE, SHUTTING_DOWN
from worker.patience import Patience

log = structlog.get_logger()


class Endings:
    def __init__(
        self,
        leasing: Leasing,
        heartbeat: Heartbeat,
        held: Held,
        blame: Blame,
        patience: Patience,
    ) -> None:
        self._leasing = leasing
        self._heartbeat = heartbeat
        self._held = held
        self._blame = blame
        self._patience = patience

    def end_stored(self) -> None:
        """Let go of the jobs that have ended.

        Raises:
            StoreUnavailable.
        """
        for drawing in self._held:
            if drawing.ended is not None and drawing.ended.done():
                drawing.ended.result()
                self._end_stored(drawing)
                self._held.let_go(drawing)
        self._heartbeat.hold(self._held.leases)

    def _end_stored(self, drawing: Drawing) -> None:
        """Its result was recorded, unless a picture could not be stored: then that is seen to."""
        try:
            for image in drawing.images.values():
                image.result()
        except (OSError, PicturesUnavailable) as error:
            # Not the job's fault: a full disk may not use up its attempts.
            log.exception("not stored", job=drawing.lease.job_id)
            metrics.NOT_STORED.inc()
            self._leasing.hand_back(drawing.lease, f"a picture could not be stored: {error}")
            self._patience.failed()
        except StoreUnavailable:
            raise
        except RetryableError as error:
            log.exception("not judged", job=drawing.lease.job_id)
            self._leasing.try_again(drawing.lease, f"a picture could not be judged: {error}")
        except UntrustedModel as error:
            log.warning("refused", job=drawing.lease.job_id, error=type(error).__name__)
            self._leasing.fail(drawing.lease, str(error))
        else:
            self._patience.succeeded()

    def obey_verdicts(self) -> None:
        """Stop the work on what was cancelled, is late, or belongs to another worker now.

        What is drawn is left to those who store it: they end it, or are fenced off. What waits
        for its model to be checked is not stored yet.
        """
        for drawing in self._held:
            if drawing.ended is not None and drawing.variant.late_check.passed:
                continue
            match self._heartbeat.verdict(drawing.lease):
                case None:
                    continue
                case "cancelled":
                    result = result_of(drawing, finished_by_now(drawing))
                    self._leasing.acknowledge_cancel(drawing.lease, result)
                    log.info("cancelled", job=drawing.lease.job_id)
                case "late":
                    result = result_of(drawing, finished_by_now(drawing, late=LATE))
                    self._leasing.fail(drawing.lease, LATE, result)
                    log.info("late", job=drawing.lease.job_id)
                case "lost":
                    log.warning(LeaseLost.__name__, job=drawing.lease.job_id)
            self._held.let_go(drawing)

    def end_refused(self) -> None:
        """Stop the work on what is drawn with a model that has not passed its late check."""
        for drawing in self._held:
            if drawing.ended is None and drawing.variant.late_check.refused:
                with self._blame.answering_for(drawing.lease):
                    drawing.variant.late_check.wait()
                self._held.let_go(drawing)

    def give_up(self, denoiser: Denoiser, error: AppError) -> None:
        """End the jobs in a batch that failed as a whole."""
        for drawing in self._held.drawn_by(denoiser):
            if isinstance(error, RetryableError) or len(self._held) > 1:
                # Alone, next time: then only the one at fault fails.
                self._leasing.try_again(drawing.lease, str(error))
            else:
                self._leasing.fail(drawing.lease, str(error))
            self._held.let_go(drawing)

    def hand_back_unfinished(self) -> None:
        """No attempt is counted. What is drawn and may leave has only to be stored: nobody is to
        draw it again."""
        for drawing in self._held:
            if not (drawing.drawn and drawing.variant.late_check.passed):
                self._leasing.hand_back(drawing.lease, SHUTTING_DOWN)
                self._held.let_go(drawing)

    def drop_everything(self) -> None:
        """Whoever drops it has seen to its leases."""
        for drawing in self._held:
            self._held.let_go(drawing)
        self._heartbeat.hold([])
