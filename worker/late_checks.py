"""What is left to check of a model when drawing with it begins, checked beside drawing.

Digesting a base's weights takes as long as reading them does, and the baked UNet of an erased
model, which is for other programs, as long again; nobody need wait for either. But a model is
served only when every file is as its manifest says: what is drawn meanwhile stays here until the
last of them was checked.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from core.errors import UntrustedModel
from core.model_files import Check
from worker.refusing import RefusalRecord, telling_refusals


class LateCheck:
    """What is left to check of one model."""

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


class LateChecks:
    """Makes one model's after another's, in a thread of its own."""

    def __init__(self, refusals: RefusalRecord | None) -> None:
        self._refusals = refusals
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="late-check")

    def begin(self, checks: Iterable[Check]) -> LateCheck:
        """Of a base: those that draw with it wait for it, and tell."""
        return LateCheck(self._thread.submit(_make, list(checks)))

    def begin_for(self, model_id: str, base: LateCheck, checks: Iterable[Check]) -> LateCheck:
        """Of a model that is served, whose base's have begun; what is found is told."""
        if not (made := [*checks]) and base.passed:
            return LateCheck()
        return LateCheck(self._thread.submit(self._tell, model_id, [base.wait, *made]))

    def _tell(self, model_id: str, checks: list[Check]) -> None:
        with telling_refusals(model_id, self._refusals):
            _make(checks)
        if self._refusals:
            self._refusals.served(model_id)


def _make(checks: list[Check]) -> None:
    # Each is dropped when it was made, and with it the memory that it has read.
    checks.reverse()
    while checks:
        checks.pop()()
