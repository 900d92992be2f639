"""The drain loop: claim into free slots, one denoising step, let go of what ended, repeat.

Storing pictures, recording results and telling how far they are wait for disks, so other threads
do that.

Requests join and leave between steps, so nobody waits for a batch to form or to finish. The
loop ends when there is nothing left to do, and Celery gets its process back.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial

import structlog
from PIL.Image import Image

from core.errors import (
    AppError,
    LeaseLost,
    ModelsUnavailable,
    PictureNotFinite,
    PicturesUnavailable,
    RetryableError,
    StoreUnavailable,
    UntrustedModel,
    WeightsDiffer,
)
from core.jobs import ImageRecord, Lease
from core.leasing import Leasing
from core.specs import GenerationSpec
from core.tracing import Tracing
from diffusion.denoiser import Denoiser
from diffusion.full_memory import within_memory
from worker import metrics
from worker.committing import Commits
from worker.decoding import decoded
from worker.drawing import Drawing, RowKey, finished_by_now, result_of
from worker.finishing import Finisher, withheld
from worker.heartbeat import Heartbeat
from worker.joining import join, texts_beside
from worker.marks import SHUTTING_DOWN
from worker.patience import Patience
from worker.reporting import Reports
from worker.shelf import Shelf
from worker.turns import Turns

log = structlog.get_logger()

STORING = 2
"""So many times the pictures of a batch are held at most, with those that are being stored."""
STILL_STORING_S = 0.1
"""So often a worker that waits for its disk or bucket says that it does not hang, and looks for
something to draw meanwhile."""
LATE = "its deadline passed while it was drawn"


class Batcher:
    def __init__(
        self,
        leasing: Leasing,
        shelf: Shelf,
        finisher: Finisher,
        heartbeat: Heartbeat,
        *,
        owner: str,
        rows: int,
        lease_s: float,
        draining: Callable[[], bool],
        drain_s: float,
        tracing: Tracing | None = None,
    ) -> None:
        self._leasing = leasing
        self._shelf = shelf
        self._finisher = finisher
        self._heartbeat = heartbeat
        self._owner = owner
        self._rows = rows
        self._lease_s = lease_s
        self._draining = draining
        self._drain_s = drain_s
        self._commits = Commits(leasing, tracing or Tracing())
        self._drawings: dict[str, Drawing] = {}
        self._claimed: list[Lease] = []
        self._held_class = ""
        self._alone = False
        self._turns = Turns()
        self._patience = Patience()
        self._reports = Reports(leasing, finisher.judges)
        self._encoders = ThreadPoolExecutor(max_workers=2, thread_name_prefix="png")
        self._held_back = ThreadPoolExecutor(max_workers=2, thread_name_prefix="held back")

    def drain(self) -> None:
        """Work until nothing waits, or until told to shut down.

        Raises:
            StoreUnavailable: Redis stayed away. What was held goes back, uncounted, when it is
                there again.
            WeightsDiffer, and errors without a name: what failed may be the device, so the process
                is not to claim again. Everything was given back.
        """
        try:
            with self._blaming(None):
                self._drain()
        except StoreUnavailable:
            # Those that have ended meanwhile are not ours any more, and stay as they are.
            drawn = (drawing.lease for drawing in self._drawings.values())
            self._heartbeat.let_go({one.token: one for one in [*self._claimed, *drawn]}.values())
            raise
        finally:
            self._drop_everything()

    def _drain(self) -> None:
        shut_down_by: float | None = None
        while True:
            self._end_refused()
            if self._draining():
                shut_down_by = shut_down_by or time.monotonic() + self._drain_s
                # What has been drawn has only to be stored: nobody is to draw it again.
                if self._denoisers() and time.monotonic() > shut_down_by:
                    self._hand_everything_back()
            else:
                self._claim()
            if not self._drawings:
                return
            self._obey_verdicts()
            if not self._step():
                self._await_stored()
            self._commit_stored()

    # --- in --------------------------------------------------------------------------------

    def _claim(self) -> None:
        held = self._drawings.values()
        free = min(
            self._rows - sum(len(drawing.undrawn) for drawing in held),
            # Pictures that are judged or stored slowly may not pile up.
            STORING * self._rows - sum(drawing.spec.n for drawing in held),
        )
        if free <= 0 or self._alone or self._patience.waits:
            return
        leases = self._leasing.claim(
            "generation",
            self._owner,
            slots=free,
            lease_s=self._lease_s,
            held=[self._held_class, *self._shelf.models],
            without=self._shelf.awaited,
            idle=not self._drawings,
            known=[drawing.lease for drawing in self._drawings.values()],
        )
        if not leases:
            return
        self._claimed = leases
        # Loading a model may take longer than a lease: beat first.
        self._heartbeat.hold([*(d.lease for d in self._drawings.values()), *leases])
        with self._shelf.holding():
            opened = []
            for lease in leases:
                if lease is not leases[0]:
                    # The one before may have been a model to load.
                    self._heartbeat.step()
                if lease.attempt == 1:
                    metrics.QUEUE_WAIT.labels("generation").observe(lease.waited_s)
                with self._answering_for(lease):
                    opening = partial(self._open, lease)
                    if drawing := within_memory(opening, "its model does not fit the device now"):
                        opened.append(drawing)
            for drawing in opened:
                with self._answering_for(drawing.lease):
                    joining = partial(join, drawing, texts_beside(drawing, opened))
                    within_memory(joining, "there is no room on the device to begin it")
                    self._begin(drawing)
        self._hold()

    @contextlib.contextmanager
    def _answering_for(self, lease: Lease) -> Iterator[None]:
        """What hinders a job from being drawn ends it with the reason, or has it tried again."""
        with self._blaming([lease]):
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
    def _blaming(self, suspects: list[Lease] | None) -> Iterator[None]:
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
            held = [drawing.lease for drawing in self._drawings.values()]
            for lease in held if suspects is None else suspects:
                why = f"its worker failed: {type(error).__name__}: {error}"
                self._leasing.try_again(lease, why)
            # Those that were given back above, or by a block within this one, are not ours now.
            for lease in [*held, *self._claimed]:
                self._leasing.hand_back(lease, "its worker failed at another job")
            raise

    def _open(self, lease: Lease) -> Drawing | None:
        """None: its model is being fetched, and it waits in the queue."""
        assert isinstance(lease.spec, GenerationSpec)
        if why := self._shelf.wait_for(lease.spec.model):
            self._leasing.hand_back(lease, why)
            return None
        with metrics.at_device("load"):
            variant = self._shelf.variant(lease.spec.model, lease.spec)
        return Drawing(lease, lease.spec, variant)

    def _begin(self, drawing: Drawing) -> None:
        lease = drawing.lease
        self._drawings[lease.token] = drawing
        self._held_class = drawing.spec.model
        self._alone = lease.alone
        log.info(
            "drawing",
            job=lease.job_id,
            request=lease.request_id,
            attempt=lease.attempt,
            model=drawing.spec.model,
        )

    # --- forward ---------------------------------------------------------------------------

    def _step(self) -> bool:
        """One denoising step of those whose turn it is, and the decoding of what is done.

        False: all has been drawn.
        """
        if not (waiting := self._denoisers()):
            return False
        denoiser = self._turns.next(waiting)
        with self._blaming([one.lease for one in self._drawn_by(denoiser)]):
            self._step_one(denoiser)
        self._heartbeat.step()
        for drawing in self._drawings.values():
            with self._blaming([drawing.lease]):
                self._reports.note(drawing)
        self._reports.send()
        return True

    def _step_one(self, denoiser: Denoiser) -> None:
        try:
            self._swap(denoiser)
            if not len(denoiser):
                return
            with (
                metrics.at_device("step"),
                metrics.timed_step(rows=len(denoiser), largest_px=self._largest(denoiser)),
            ):
                finished = denoiser.step()
            # What shares a pass with a picture may change its last bits.
            together = [[done] for done in finished] if self._alone else [finished]
            with metrics.at_device("decode"):
                pictures = [picture for some in together for picture in decoded(denoiser, some)]
        except (WeightsDiffer, StoreUnavailable):
            raise
        except AppError as error:
            self._give_up(denoiser, error)
            return
        for done, picture in zip(finished, pictures, strict=True):
            assert isinstance(done.key, RowKey)
            drawing = self._drawings[done.key.token]
            # What waits for the rest of its model to be checked does not hold up the others.
            whole = drawing.variant.late_check.passed
            threads = self._encoders if whole else self._held_back
            drawing.images[done.key.number] = threads.submit(
                self._finish, drawing, done.key.number, picture
            )
            if drawing.drawn:
                drawing.ended = threads.submit(self._end, drawing)

    def _swap(self, denoiser: Denoiser) -> None:
        """Its weights onto the device, where they are not yet; who may not draw now leaves."""
        began_s = time.perf_counter()
        with metrics.at_device("swap"):
            swapped = denoiser.wear()
            if swapped:
                self._check_again(denoiser)
        took_s = time.perf_counter() - began_s
        if swapped:
            metrics.SWAP.labels("swap").observe(took_s)
        self._turns.took(took_s)

    def _check_again(self, denoiser: Denoiser) -> None:
        """End the jobs of models in a batch that are not to be served any more."""
        drawings = self._drawn_by(denoiser)
        for variant in {id(one.variant): one.variant for one in drawings}.values():
            try:
                self._shelf.check_again(variant)
            except AppError:
                for drawing in (one for one in drawings if one.variant is variant):
                    with self._answering_for(drawing.lease):
                        raise
                    self._forget(drawing)

    def _denoisers(self) -> list[Denoiser]:
        """Those with rows, each once."""
        waiting = [d.variant.denoiser for d in self._drawings.values() if not d.drawn]
        return list({id(denoiser): denoiser for denoiser in waiting}.values())

    def _drawn_by(self, denoiser: Denoiser) -> list[Drawing]:
        """Those with rows in a batch."""
        everything = self._drawings.values()
        return [d for d in everything if d.variant.denoiser is denoiser and not d.drawn]

    def _largest(self, denoiser: Denoiser) -> tuple[int, int]:
        """Width and height of the largest picture in a batch, in pixels."""
        specs = [d.spec for d in self._drawings.values() if d.variant.denoiser is denoiser]
        return max(((spec.width or 0, spec.height or 0) for spec in specs), key=math.prod)

    def _finish(
        self, drawing: Drawing, number: int, picture: Image | PictureNotFinite
    ) -> ImageRecord:
        lease, spec = drawing.lease, drawing.spec
        drawing.variant.late_check.wait()
        if isinstance(picture, PictureNotFinite):
            return withheld(lease, (spec.seed or 0) + number, picture)
        return self._finisher.finish(lease, spec, number, picture, drawing.variant)

    def _end(self, drawing: Drawing) -> None:
        """Record the result as soon as the last picture is stored, whatever step is under way.

        Nothing, where one was not stored: the drawing thread sees to that.

        Raises:
            StoreUnavailable.
        """
        pictures = [drawing.images[number] for number in range(drawing.spec.n)]
        # Those were begun before this: no thread waits for one that waits for a thread.
        if all(picture.exception() is None for picture in pictures):
            self._commits.commit(drawing, tuple(picture.result() for picture in pictures))

    # --- out -------------------------------------------------------------------------------

    def _await_stored(self) -> None:
        """Until the first job has ended, or for a moment: something to draw may have come.

        A bucket that does not answer takes its time to give up.
        """
        held = self._drawings.values()
        ended = [drawing.ended for drawing in held if drawing.ended is not None]
        if ended and not wait(ended, STILL_STORING_S, return_when=FIRST_COMPLETED).done:
            self._heartbeat.step()

    def _commit_stored(self) -> None:
        """Let go of the jobs that have ended.

        Raises:
            StoreUnavailable.
        """
        for drawing in list(self._drawings.values()):
            if drawing.ended is None or not drawing.ended.done():
                continue
            drawing.ended.result()
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
            self._forget(drawing)
        self._hold()

    def _obey_verdicts(self) -> None:
        """Stop the work on what was cancelled, is late, or belongs to another worker now.

        What is drawn is left to those who store it: they end it, or are fenced off. What waits
        for its model to be checked is not stored yet.
        """
        for drawing in list(self._drawings.values()):
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
            self._forget(drawing)

    def _end_refused(self) -> None:
        """Stop the work on what is drawn with a model that has not passed its late check."""
        for drawing in list(self._drawings.values()):
            if drawing.ended is None and drawing.variant.late_check.refused:
                with self._answering_for(drawing.lease):
                    drawing.variant.late_check.wait()
                self._forget(drawing)

    def _give_up(self, denoiser: Denoiser, error: AppError) -> None:
        """End the jobs in a batch that failed as a whole."""
        for drawing in self._drawn_by(denoiser):
            if isinstance(error, RetryableError) or len(self._drawings) > 1:
                # Alone, next time: then only the one at fault fails.
                self._leasing.try_again(drawing.lease, str(error))
            else:
                self._leasing.fail(drawing.lease, str(error))
            self._forget(drawing)

    def _drop_everything(self) -> None:
        for drawing in list(self._drawings.values()):
            self._forget(drawing)
        self._reports.clear()
        self._hold()

    def _hand_everything_back(self) -> None:
        for drawing in list(self._drawings.values()):
            self._leasing.hand_back(drawing.lease, SHUTTING_DOWN)
            self._forget(drawing)

    def _forget(self, drawing: Drawing) -> None:
        for key in drawing.keys:
            drawing.variant.denoiser.leave(key)
        del self._drawings[drawing.lease.token]
        self._alone = False

    def _hold(self) -> None:
        self._heartbeat.hold([drawing.lease for drawing in self._drawings.values()])
