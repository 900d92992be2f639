"""A job's way in: claimed into free slots, its model opened, its first step prepared."""

from collections.abc import Sequence
from functools import partial

import structlog

from core.jobs import Lease
from core.leasing import Leasing
from core.specs import GenerationSpec
from diffusion.full_memory import within_memory
from worker import metrics
from worker.blame import Blame
from worker.drawing import Drawing
from worker.heartbeat import Heartbeat
from worker.held import Held
from worker.joining import join, texts_beside
from worker.patience import Patience
from worker.shelf import Shelf

log = structlog.get_logger()


class Intake:
    def __init__(
        self,
        leasing: Leasing,
        shelf: Shelf,
        heartbeat: Heartbeat,
        held: Held,
        blame: Blame,
        patience: Patience,
        *,
        owner: str,
        rows: int,
        lease_s: float,
    ) -> None:
        """
        Args:
            rows: pictures of a batch.
        """
        self._leasing = leasing
        self._shelf = shelf
        self._heartbeat = heartbeat
        self._held = held
        self._blame = blame
        self._patience = patience
        self._owner = owner
        self._rows = rows
        self._lease_s = lease_s
        self._last_model = ""

    def claim(self) -> None:
        """As many jobs as there is room for, and begin to draw them."""
        free = self._held.free(self._rows)
        if free <= 0 or self._held.alone or self._patience.waits:
            return
        leases = self._leasing.claim(
            "generation",
            self._owner,
            slots=free,
            lease_s=self._lease_s,
            held=[self._last_model, *self._shelf.models],
            without=[*self._shelf.awaited, *self._held.overdrawn(self._rows)],
            idle=not self._held,
            known=self._held.leases,
        )
        if not leases:
            return
        self._held.claimed = leases
        # Loading a model may take longer than a lease: beat first.
        self._heartbeat.hold([*self._held.leases, *leases])
        # Nobody looks at verdicts before a model was loaded, and that may take a minute.
        with self._shelf.holding(), self._heartbeat.standing_in():
            opened = self._opened(leases)
            for drawing in opened:
                with self._blame.answering_for(drawing.lease):
                    joining = partial(join, drawing, texts_beside(drawing, opened))
                    within_memory(joining, "there is no room on the device to begin it")
                    self._begin(drawing)
        self._heartbeat.hold(self._held.leases)

    def _opened(self, leases: Sequence[Lease]) -> list[Drawing]:
        """Those whose models are there; the others were ended, or given back."""
        opened = []
        for lease in leases:
            if lease is not leases[0]:
                # The one before may have been a model to load.
                self._heartbeat.step()
            if lease.attempt == 1:
                metrics.QUEUE_WAIT.labels("generation").observe(lease.waited_s)
            with self._blame.answering_for(lease):
                opening = partial(self._open, lease)
                if drawing := within_memory(opening, "its model does not fit the device now"):
                    opened.append(drawing)
        return opened

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
        self._held.add(drawing)
        self._last_model = drawing.spec.model
        log.info(
            "drawing",
            job=lease.job_id,
            request=lease.request_id,
            attempt=lease.attempt,
            model=drawing.spec.model,
        )
