"""What a client is told of a generation that is being drawn: its steps, and previews.

Telling it waits for Redis and its disk, so a thread of its own does that, for all drawings at
once; the next step does not wait for it.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from PIL.Image import Image

from core.errors import DeviceOutOfMemory, PictureNotFinite
from core.leasing import Leasing, Report
from core.progress import Preview, Progress
from diffusion.previews import to_jpeg
from worker import metrics
from worker.drawing import Drawing

PROGRESS_EVERY_S = 1.0
"""Of what nobody follows: the record tells, too."""


@dataclass(frozen=True)
class _Note:
    drawing: Drawing
    done: int
    total: int
    pictures: Sequence[tuple[int, Image]] = ()
    """Number in the job, and what it will look like."""
    previewed: int = 0
    """After how many steps they look so."""

    def after(self, earlier: "_Note | None") -> "_Note":
        """Pictures that were not told of yet stay, if there are no newer ones."""
        if self.pictures or earlier is None:
            return self
        return replace(self, pictures=earlier.pictures, previewed=earlier.previewed)


class Reports:
    def __init__(self, leasing: Leasing, judges: Callable[[str], bool]) -> None:
        """
        Args:
            judges: whether a tenant's pictures may be seen only after they were judged; there
                are no previews then.
        """
        self._leasing = leasing
        self._judges = judges
        self._notes: dict[str, _Note] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="report")
        self._sending: Future[None] | None = None

    def note(self, drawing: Drawing) -> None:
        """Take down how far a drawing is when it is time to, or when a preview is due."""
        now = time.monotonic()
        done, total = drawing.steps()
        due = 0 if drawing.drawn else done * (drawing.spec.previews + 1) // total
        often = drawing.followed or drawing.spec.previews
        rested = now - drawing.reported_at >= PROGRESS_EVERY_S
        if due <= drawing.previewed and not often and not rested:
            return
        pictures = self._pictures(drawing) if due > drawing.previewed else []
        drawing.previewed = max(due, drawing.previewed)
        drawing.reported_at = now
        note = _Note(drawing, done, total, pictures, done)
        token = drawing.lease.token
        self._notes[token] = note.after(self._notes.get(token))

    def send(self) -> None:
        """Send what was noted; what is noted while a message is on its way goes with the next.

        Raises:
            StoreUnavailable: an earlier message did not arrive.
        """
        if self._sending is not None:
            if not self._sending.done():
                return
            sent, self._sending = self._sending, None
            sent.result()
        if self._notes:
            notes, self._notes = [*self._notes.values()], {}
            self._sending = self._thread.submit(self._send, notes)

    def clear(self) -> None:
        """Nothing more is to be told of what was drawn; what is on its way may fail unseen."""
        self._notes.clear()
        self._sending = None

    def arrived(self) -> None:
        """Wait for the message that is on its way, and for what came of it."""
        if self._sending is not None:
            wait([self._sending])

    def _send(self, notes: Sequence[_Note]) -> None:
        followed = self._leasing.report_all([self._report(note) for note in notes])
        for note, one in zip(notes, followed, strict=True):
            note.drawing.followed = one

    def _report(self, note: _Note) -> Report:
        previews = self._previews(note)
        progress = Progress(
            stage="denoising",
            done=note.done,
            total=note.total,
            previewed=note.previewed if previews else 0,
        )
        return Report(note.drawing.lease, progress, previews)

    def _previews(self, note: _Note) -> list[Preview]:
        if not note.pictures or not note.drawing.variant.late_check.passed:
            return []
        # Asked at the last moment: nothing that is unjudged is seen.
        if self._judges(note.drawing.lease.tenant):
            note.drawing.judged = True
            return []
        return [
            Preview(index=number, step=note.previewed, jpeg=to_jpeg(picture))
            for number, picture in note.pictures
        ]

    def _pictures(self, drawing: Drawing) -> list[tuple[int, Image]]:
        if drawing.judged:
            return []
        try:
            with metrics.at_device("preview"):
                pictures = drawing.variant.denoiser.previews(drawing.undrawn)
        except (PictureNotFinite, DeviceOutOfMemory):
            return []  # what is wrong with the picture is told when it is done
        return [
            (key.number, picture)
            for key, picture in zip(drawing.undrawn, pictures, strict=bool(pictures))
        ]
