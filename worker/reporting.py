"""What a client is told of a generation that is being drawn: its steps, and previews."""

import time
from collections.abc import Callable

from core.errors import DeviceOutOfMemory, PictureNotFinite
from core.leasing import Leasing
from core.progress import Preview, Progress
from diffusion.previews import to_jpeg
from worker import metrics
from worker.drawing import Drawing

PROGRESS_EVERY_S = 0.5


class Reports:
    def __init__(self, leasing: Leasing, judges: Callable[[str], bool]) -> None:
        """
        Args:
            judges: whether a tenant's pictures may be seen only after they were judged; there
                are no previews then.
        """
        self._leasing = leasing
        self._judges = judges

    def tell(self, drawing: Drawing) -> None:
        """Report a drawing when it is time to, or when a preview is due.

        Raises:
            StoreUnavailable.
        """
        now = time.monotonic()
        done, total = drawing.steps()
        due = 0 if drawing.drawn else done * (drawing.spec.previews + 1) // total
        if due <= drawing.previewed and now - drawing.reported_at < PROGRESS_EVERY_S:
            return
        previews = self._previews(drawing, done) if due > drawing.previewed else []
        drawing.previewed = max(due, drawing.previewed)
        drawing.reported_at = now
        previewed = done if previews else 0
        progress = Progress(stage="denoising", done=done, total=total, previewed=previewed)
        self._leasing.report(drawing.lease, progress, previews)

    def _previews(self, drawing: Drawing, done: int) -> list[Preview]:
        if self._judges(drawing.lease.tenant):
            return []
        try:
            with metrics.at_device("preview"):
                pictures = drawing.variant.denoiser.previews(drawing.undrawn)
        except (PictureNotFinite, DeviceOutOfMemory):
            return []  # what is wrong with the picture is told when it is done
        return [
            Preview(index=key.number, step=done, jpeg=to_jpeg(picture))
            for key, picture in zip(drawing.undrawn, pictures, strict=True)
        ]
