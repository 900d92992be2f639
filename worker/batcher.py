"""The drain loop: claim into free slots, one denoising step, let go of what ended, repeat.

Storing pictures, recording results and telling how far they are wait for disks, so other threads
do that.

Requests join and leave between steps, so nobody waits for a batch to form or to finish. The
loop ends when there is nothing left to do, and Celery gets its process back.
"""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait

from core.errors import AppError, StoreUnavailable, WeightsDiffer
from core.leasing import Leasing
from core.tracing import Tracing
from diffusion.denoiser import Denoiser
from diffusion.freed_memory import Returning
from worker import metrics
from worker.blame import Blame
from worker.committing import Commits
from worker.decoding import decoded
from worker.drawing import RowKey
from worker.endings import Endings
from worker.finishing import Finisher
from worker.getting_on import GettingOn
from worker.heartbeat import Heartbeat
from worker.held import Held
from worker.intake import Intake
from worker.patience import Patience
from worker.reporting import Reports
from worker.shelf import Shelf
from worker.storing import Storing
from worker.turns import Turns

STILL_STORING_S = 0.1
"""So often a worker that waits for its disk or bucket says that it does not hang, and looks for
something to draw meanwhile."""
STORED_WITHIN_S = 300.0
"""A picture, or some bytes that are checked: where it takes longer, the disk hangs, and the worker
with it. A bucket that does not answer is given up sooner."""


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
        """
        Args:
            rows: pictures of a batch.
            draining: whether this worker is to end.
            drain_s: how long it goes on drawing what it holds then.
        """
        self._shelf = shelf
        self._heartbeat = heartbeat
        self._draining = draining
        self._drain_s = drain_s
        self._held = Held()
        self._turns = Turns()
        self._storage = GettingOn(STORED_WITHIN_S)
        self._return_memory = Returning()
        self._reports = Reports(leasing, finisher.judges)
        self._storing = Storing(finisher, Commits(leasing, tracing or Tracing()))
        patience = Patience()
        self._blame = Blame(leasing, self._held, patience)
        self._intake = Intake(
            *(leasing, shelf, heartbeat, self._held, self._blame, patience),
            owner=owner,
            rows=rows,
            lease_s=lease_s,
        )
        self._endings = Endings(leasing, heartbeat, self._held, self._blame, patience)

    def drain(self) -> None:
        """Work until nothing waits, or until told to shut down.

        Raises:
            StoreUnavailable: Redis stayed away. What was held goes back, uncounted, when it is
                there again.
            WeightsDiffer, and errors without a name: what failed may be the device, so the process
                is not to claim again. Everything was given back.
        """
        try:
            with self._blame.blaming(None):
                self._drain()
        except StoreUnavailable:
            # Those that have ended meanwhile are not ours any more, and stay as they are.
            leases = [*self._held.claimed, *self._held.leases]
            self._heartbeat.let_go({one.token: one for one in leases}.values())
            raise
        finally:
            self._endings.drop_everything()
            self._reports.clear()

    def _drain(self) -> None:
        shut_down_by: float | None = None
        while True:
            self._return_memory()
            self._endings.end_refused()
            if self._draining():
                shut_down_by = shut_down_by or time.monotonic() + self._drain_s
                if time.monotonic() > shut_down_by:
                    self._endings.hand_back_unfinished()
            else:
                self._intake.claim()
            if not self._held:
                return
            self._endings.obey_verdicts()
            if not self._step():
                self._await_stored()
            self._endings.end_stored()

    def _step(self) -> bool:
        """One denoising step of those whose turn it is, and the decoding of what is done.

        False: all has been drawn.
        """
        if not (waiting := self._held.denoisers()):
            return False
        denoiser = self._turns.next(waiting)
        with self._blame.blaming([one.lease for one in self._held.drawn_by(denoiser)]):
            self._step_one(denoiser)
        self._heartbeat.step()
        for drawing in self._held:
            with self._blame.blaming([drawing.lease]):
                self._reports.note(drawing)
        self._reports.send()
        return True

    def _step_one(self, denoiser: Denoiser) -> None:
        try:
            self._swap(denoiser)
            if not len(denoiser):
                return
            largest_px = self._held.largest_px(denoiser)
            with (
                metrics.at_device("step"),
                metrics.timed_step(rows=len(denoiser), largest_px=largest_px),
            ):
                finished = denoiser.step()
            # What shares a pass with a picture may change its last bits.
            together = [[done] for done in finished] if self._held.alone else [finished]
            with metrics.at_device("decode"):
                pictures = [picture for some in together for picture in decoded(denoiser, some)]
        except (WeightsDiffer, StoreUnavailable):
            raise
        except AppError as error:
            self._endings.give_up(denoiser, error)
            return
        for done, picture in zip(finished, pictures, strict=True):
            assert isinstance(done.key, RowKey)
            self._storing.begin(self._held[done.key.token], done.key.number, picture)

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
        drawings = self._held.drawn_by(denoiser)
        for variant in {id(one.variant): one.variant for one in drawings}.values():
            try:
                self._shelf.check_again(variant)
            except AppError:
                for drawing in (one for one in drawings if one.variant is variant):
                    with self._blame.answering_for(drawing.lease):
                        raise
                    self._held.let_go(drawing)

    def _await_stored(self) -> None:
        """Until the first job has ended, or for a moment: something to draw may have come.

        A bucket that does not answer takes its time to give up.
        """
        ended = [drawing.ended for drawing in self._held if drawing.ended is not None]
        if not ended or wait(ended, STILL_STORING_S, return_when=FIRST_COMPLETED).done:
            return
        if self._storage.at(self._held.stored, self._shelf.checked_bytes):
            self._heartbeat.step()
