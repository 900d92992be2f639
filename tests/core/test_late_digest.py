"""A digest in another thread is that of the bytes in their order, and its distance has a bound."""

import hashlib
import threading

import pytest

from core import late_digest
from core.digests import Algorithm, hasher
from core.late_digest import LateDigest

DATA = bytes(range(251)) * 999


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(late_digest, "SLICE_BYTES", 4096)
    monkeypatch.setattr(late_digest, "AHEAD_BYTES", 3 * 4096)


@pytest.fixture
def late():
    digest = LateDigest(hasher(Algorithm.SHA256))
    yield digest
    digest.close()


@pytest.mark.parametrize("sizes", [(1,), (4096,), (5000,), (3, 0, 9000, 1, 4093), (len(DATA),)])
def test_pieces_of_any_size_make_the_digest_of_the_whole(late, sizes):
    rest, turn = memoryview(DATA), 0
    while rest:
        size = sizes[turn % len(sizes)]
        late.take(rest[:size])
        rest, turn = rest[size:], turn + 1

    assert late.hexdigest() == hashlib.sha256(DATA).hexdigest()


def test_what_was_taken_may_change_once_it_has_caught_up(late):
    buffer = bytearray(DATA[:10_000])
    late.take(memoryview(buffer))
    late.catch_up()
    buffer[:] = bytes(len(buffer))
    late.take(memoryview(DATA)[10_000:])

    assert late.hexdigest() == hashlib.sha256(DATA).hexdigest()


def test_what_is_put_off_is_digested_when_somebody_asks(late):
    """In memory that may change before, which shows that nobody looked."""
    buffer = bytearray(len(DATA))
    late.take(memoryview(buffer)[:0])
    late.put_off()
    for start in range(0, len(DATA), 5000):
        late.take(memoryview(buffer)[start : start + 5000])
    late.close()
    buffer[:] = DATA

    assert late.hexdigest() == hashlib.sha256(DATA).hexdigest()


class SlowHasher:
    def __init__(self) -> None:
        self.may_go_on = threading.Semaphore(0)

    def update(self, data) -> None:
        self.may_go_on.acquire()

    def hexdigest(self) -> str:
        return ""


def test_who_reads_waits_when_the_digest_has_fallen_far_behind():
    slow, taken = SlowHasher(), []
    late = LateDigest(slow)

    def read() -> None:
        for number in range(6):
            late.take(memoryview(bytes(4096)))
            taken.append(number)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(0.5)
    assert taken == [0, 1, 2], "three slices may be behind, the fourth waits"
    slow.may_go_on.release(6)
    reader.join(10)
    late.close()
    assert taken == list(range(6))


def test_an_error_while_digesting_is_not_swallowed():
    class Broken(SlowHasher):
        def update(self, data) -> None:
            raise MemoryError

    late = LateDigest(Broken())
    late.take(memoryview(DATA)[:5000])
    with pytest.raises(MemoryError):
        late.hexdigest()
    late.close()
