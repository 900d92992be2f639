"""Made-up requests to a real process: nothing breaks, and every answer is as documented."""

import threading

import pytest

from benchmarks.fuzz import SURROUNDINGS, both
from core.keys import KeyStore
from core.workers import WorkerRoll
from tests.service.scenery import Worker


@pytest.fixture
def drawing(parts):
    """A worker that draws whatever comes, so that nobody waits for long."""
    stopped = threading.Event()

    def work() -> None:
        worker, roll = Worker(parts), WorkerRoll(parts.client)
        while not stopped.wait(0.01):
            roll.beat("inference-0@here")
            while worker.draw_any():
                pass

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopped.set()
    thread.join()


def test_nothing_breaks_and_every_answer_is_as_documented(start, parts, drawing, tmp_path):
    _, admin = KeyStore(parts.client).create(scopes=["admin"])
    address, _ = start(**SURROUNDINGS, TRCE_MAX_BODY_BYTES="262144")

    summary = both(address, admin, tmp_path, cases=600, max_time_s=56)

    said = [file.read_text()[-4000:] for file in tmp_path.glob("*/output.txt")]
    assert summary.clean, (summary.failures, said)
    assert summary.cases > 50  # many hundreds, on a machine that does nothing else
