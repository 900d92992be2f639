import pytest

from core.errors import StoreUnavailable
from worker.replacing import or_be_replaced


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("worker.patience.FIRST_S", 0.01)
    monkeypatch.setattr("worker.replacing.LOOK_EVERY_S", 0.001)


@pytest.fixture
def live(tmp_path):
    """One life of a worker process; returns the exit code that it ended with, if it did."""

    def run(drain, *, draining=lambda: False) -> list[int]:
        ends: list[int] = []
        mark = tmp_path / "run" / "inference-0.failed"
        or_be_replaced(drain, mark=mark, draining=draining, end=ends.append)
        return ends

    return run


def fail() -> None:
    raise RuntimeError("CUDA error: unspecified launch failure")


def test_a_process_that_failed_ends(live):
    assert live(fail) == [1]


def test_one_that_did_not_goes_on(live):
    assert live(lambda: None) == []


def test_each_that_fails_waits_longer_than_the_one_before_it(live, tmp_path):
    waits = []
    for _ in range(3):
        live(fail)
        waits.append(float((tmp_path / "run" / "inference-0.failed").read_text()))
    assert waits == [0.01, 0.02, 0.04]

    live(lambda: None)
    live(fail)
    assert float((tmp_path / "run" / "inference-0.failed").read_text()) == 0.01


def test_one_that_is_told_to_shut_down_does_not_wait(live, monkeypatch):
    monkeypatch.setattr("worker.patience.FIRST_S", 600.0)
    monkeypatch.setattr("worker.patience.LONGEST_S", 600.0)
    assert live(fail, draining=lambda: True) == [1]


def test_an_outage_of_the_broker_replaces_nobody(live):
    def lose_the_broker() -> None:
        raise StoreUnavailable("Redis does not answer")

    with pytest.raises(StoreUnavailable):
        live(lose_the_broker)
