"""A digest that follows its file at a distance, in a thread of its own, or is put off."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from core.digests import Hasher

AHEAD_BYTES = 256 << 20
"""How much may have been read and not digested yet."""
SLICE_BYTES = 8 << 20
"""Read and digested at a time: a model's hundreds of small tensors are not handed over one by one,
and the digest of a large one begins before all of it is read."""


class LateDigest:
    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._slice: list[memoryview] = []
        self._slice_bytes = 0
        self._behind: deque[tuple[Future[None], int]] = deque()
        self._behind_bytes = 0
        self._put_off = False

    def put_off(self) -> None:
        """What is taken from now on is digested when somebody asks, and stays as it is till then.

        Nothing of it is copied: whoever uses it has it in memory anyway.
        """
        self._put_off = True

    def take(self, piece: memoryview) -> None:
        """What comes next of the file; it is not to change. Waits while too much is behind."""
        self._slice.append(piece)
        self._slice_bytes += len(piece)
        if self._slice_bytes >= SLICE_BYTES and not self._put_off:
            pieces, size = self._taken()
            self._behind.append((self._thread.submit(self._digest, pieces), size))
            self._behind_bytes += size
            # So that whoever drops what he has read does not fill the memory.
            self._wait(AHEAD_BYTES)

    def catch_up(self) -> None:
        """All that was taken is digested, and may change."""
        self._wait(0)
        pieces, _ = self._taken()
        self._digest(pieces)

    def hexdigest(self) -> str:
        """Of all that was taken."""
        self.catch_up()
        return self._hasher.hexdigest()

    def close(self) -> None:
        self._thread.shutdown()

    def _taken(self) -> tuple[list[memoryview], int]:
        """What no slice has yet, and its size in bytes."""
        taken = self._slice, self._slice_bytes
        self._slice, self._slice_bytes = [], 0
        return taken

    def _wait(self, behind_bytes: int) -> None:
        while self._behind_bytes > behind_bytes:
            digested, size = self._behind.popleft()
            digested.result()
            self._behind_bytes -= size

    def _digest(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self._hasher.update(piece)
