"""The end of a drawing: its result recorded, unless the job is another worker's by now."""

import time

import structlog

from core.jobs import ImageRecord
from core.leasing import Leasing
from core.tracing import Tracing, Value
from worker import metrics
from worker.drawing import Drawing, result_of

log = structlog.get_logger()


class Commits:
    def __init__(self, leasing: Leasing, tracing: Tracing) -> None:
        self._leasing = leasing
        self._tracing = tracing

    def commit(self, drawing: Drawing, images: tuple[ImageRecord, ...]) -> None:
        """Some pictures may have been withheld; when something went wrong with all, it failed.

        Raises:
            StoreUnavailable.
        """
        result = result_of(drawing, images)
        if all(image.finish_reason == "error" for image in images):
            kept = self._leasing.fail(drawing.lease, images[0].reason or "", result)
        else:
            kept = self._leasing.succeed(drawing.lease, result)
        if kept:
            for image in images:
                metrics.IMAGES.labels(image.finish_reason).inc()
        log.info("drawn" if kept else "fenced off", job=drawing.lease.job_id)
        self._trace(drawing, kept=kept)

    def _trace(self, drawing: Drawing, *, kept: bool) -> None:
        """Of this attempt: how long its job had waited, and how long it was drawn."""
        lease, now = drawing.lease, time.time()
        facts: dict[str, Value] = {
            "job": lease.job_id,
            "attempt": lease.attempt,
            "model": drawing.spec.model,
        }
        for name, began_s, ended_s in [
            ("wait", drawing.began_s - lease.waited_s, drawing.began_s),
            ("draw", drawing.began_s, now),
        ]:
            self._tracing.record(
                name,
                lease.request_id,
                began_s=began_s,
                ended_s=ended_s,
                attributes={**facts, "kept": kept},
            )
