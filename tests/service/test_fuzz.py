"""Made-up requests to a real process: nothing breaks, and every answer is as documented."""

import threading

import pytest
from scenery import Worker

from benchmarks.fuzz import SURROUNDINGS, fuzz
from core.keys import KeyStore


@pytest.fixture
def drawing(parts):
    """A worker that draws whatever comes, so that nobody waits for long."""
    stopped = threading.Event()

    def work() -> None:
        worker = Worker(parts)
        while not stopped.wait(0.01):
            while worker.draw_any():
                pass

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopped.set()
    thread.join()


def test_nothing_breaks_and_every_answer_is_as_documented(start, parts, drawing, tmp_path):
    _, key = KeyStore(parts.client).create(scopes=["admin"])
    address, _ = start(**SURROUNDINGS, TRCE_MAX_BODY_BYTES="262144")

    summary = fuzz(address, key, tmp_path, per_operation=1, max_time_s=40)

    assert summary.clean, (summary.failures, (tmp_path / "output.txt").read_text()[-8000:])
    assert summary.cases > 20  # hundreds, on a machine that does nothing else
