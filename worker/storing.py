"""Drawn pictures on their way out: judged, signed and stored beside drawing, then recorded."""

from concurrent.futures import ThreadPoolExecutor

from PIL.Image import Image

from core.errors import LeaseLost, PictureNotFinite
from core.jobs import ImageRecord
from worker.committing import Commits
from worker.drawing import Drawing
from worker.finishing import Finisher, withheld

THREADS = 2
"""As many again for those whose model is still being checked."""


class Storing:
    def __init__(self, finisher: Finisher, commits: Commits) -> None:
        self._finisher = finisher
        self._commits = commits
        self._encoders = ThreadPoolExecutor(THREADS, thread_name_prefix="png")
        self._held_back = ThreadPoolExecutor(THREADS, thread_name_prefix="held back")

    def begin(self, drawing: Drawing, number: int, picture: Image | PictureNotFinite) -> None:
        """With picture `number` of a drawing, in a thread; with the last one the drawing ends."""
        if drawing.stored_by is None:
            # What waits for the rest of its model to be checked does not hold up the others.
            whole = drawing.variant.late_check.passed
            drawing.stored_by = self._encoders if whole else self._held_back
        threads = drawing.stored_by
        drawing.images[number] = threads.submit(self._finish, drawing, number, picture)
        if drawing.drawn:
            drawing.ended = threads.submit(self._end, drawing)

    def _finish(
        self, drawing: Drawing, number: int, picture: Image | PictureNotFinite
    ) -> ImageRecord:
        lease, spec = drawing.lease, drawing.spec
        drawing.variant.late_check.wait()
        if drawing.let_go:
            raise LeaseLost("it was stopped before its model was checked")
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
