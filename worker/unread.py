"""The files of an erased model that no worker reads, digested beside drawing.

The baked UNet, which is for other programs, takes as long to digest as the base to load; nobody
else of that base need wait for it. But a model is served only when every file is as its manifest
says: what is drawn meanwhile stays here until the last of them was checked.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from core.errors import UntrustedModel
from core.model_files import ModelFiles
from worker.refusing import RefusalRecord, telling_refusals


class Unread:
    """What is left to check of one loaded model."""

    def __init__(self, checking: "Future[None] | None" = None) -> None:
        """
        Args:
            checking: ends with UntrustedModel where a file is not as it was signed; None: nothing
                is left.
        """
        self._checking = checking

    @property
    def passed(self) -> bool:
        if self._checking is None:
            return True
        return self._checking.done() and self._checking.exception() is None

    @property
    def refused(self) -> bool:
        return self._checking is not None and self._checking.done() and not self.passed

    def wait(self) -> None:
        """Until everything was checked. Raises UntrustedModel."""
        if self._checking is not None and (error := self._checking.exception()) is not None:
            # A new one each time: many wait, each in a thread of its own.
            raise UntrustedModel(str(error)) from error


class UnreadFiles:
    """Checks what is left of one model after another, in a thread of its own."""

    def __init__(self, refusals: RefusalRecord | None) -> None:
        self._refusals = refusals
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unread")

    def check(self, model_id: str, files: ModelFiles, names: Iterable[str]) -> Unread:
        return Unread(self._thread.submit(self._check, model_id, files, sorted(names)))

    def _check(self, model_id: str, files: ModelFiles, names: list[str]) -> None:
        with telling_refusals(model_id, self._refusals):
            for name in names:
                files.check(name)
        if self._refusals:
            self._refusals.served(model_id)
