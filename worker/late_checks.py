"""What is left to check of a model when drawing with it begins, checked beside drawing.

Digesting a base's weights takes as long as reading them does, and the baked UNet of an erased
model, which is for other programs, as long again; nobody need wait for either. But a model is
served only when every file is as its manifest says: what is drawn meanwhile stays here until the
last of them was checked.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from core.byte_counting import counting
from core.checked_stream import Check, LeftToCheck
from core.errors import UntrustedModel
from core.manifests import Manifest
from worker.refusing import RefusalRecord, telling_refusals

READERS = 2
"""Threads that read files which nobody draws with: a model's that are on a slow disk do not hold
up those of all others. Bases have as many of their own: what is read of erased models, gigabytes
of each, holds up no base."""

ModelKey = tuple[str, str]
"""A model's id, and the digest of its files: the same files under two names are two models, each
with a status and a certificate of its own."""


def key_of(manifest: Manifest) -> ModelKey:
    return manifest.id, manifest.content_digest


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
    """Makes them in threads of their own, and remembers which models have failed.

    A check waits for none that was begun after it, so no thread waits for ever.
    """

    def __init__(self, refusals: RefusalRecord | None) -> None:
        self._refusals = refusals
        self._digesting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="late-digest")
        self._bases = ThreadPoolExecutor(READERS, thread_name_prefix="late-base")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="late-check")
        self.bytes = 0
        """How much has been read so far."""
        self._doubted: set[ModelKey] = set()

    def doubts(self, manifest: Manifest) -> bool:
        """Whether the model has failed, and nothing of it is to be left for later."""
        return key_of(manifest) in self._doubted

    def trust(self, manifest: Manifest) -> None:
        """All of it was checked, and has passed."""
        self._doubted.discard(key_of(manifest))

    def begin_base(self, manifest: Manifest, left: LeftToCheck) -> tuple[LateCheck, LateCheck]:
        """Of its weights, and of all of it; those that draw with it wait for it, and tell."""
        key = key_of(manifest)
        digested = LateCheck(self._digesting.submit(self._make, key, left.read))
        if not left.unread:
            return digested, digested
        checks = [digested.wait, *left.unread]
        return digested, LateCheck(self._bases.submit(self._make, key, checks))

    def begin(self, manifest: Manifest, base: LateCheck, unread: Iterable[Check]) -> LateCheck:
        """Of a model that is served, whose base's have begun; what is found is told."""
        checks = [*unread]
        if not checks and base.passed:
            return LateCheck()
        # With nothing of its own to read it has only to tell what becomes of its base.
        threads = self._reading if checks else self._bases
        return LateCheck(threads.submit(self._tell, manifest, base, checks))

    def _tell(self, manifest: Manifest, base: LateCheck, checks: list[Check]) -> None:
        with telling_refusals(manifest.id, self._refusals):
            base.wait()
            self._make(key_of(manifest), checks)
        if self._refusals:
            self._refusals.served(manifest.id)

    def _make(self, key: ModelKey, checks: list[Check]) -> None:
        checks.reverse()
        try:
            with counting(self._count):
                while checks:
                    # Each is dropped when it was made, and with it the memory that it has read.
                    checks.pop()()
        except BaseException:
            self._doubted.add(key)
            raise
        finally:
            checks.clear()

    def _count(self, read_bytes: int) -> None:
        self.bytes += read_bytes
