"""A cancel is obeyed in time; one near a fault is not judged."""

import pytest

from tests.chaos.faults import Fault
from tests.chaos.journal import Cancel
from tests.chaos.test_checker import QUEUED, SUCCEEDED, entries, job, order, running, verdict

CANCELLED = {"state": "cancelled"}
SENT_AT = 100.5


def cancelled(while_it_was: str, took_s: float, *faults: Fault, crowding: float = 1.0):
    """Of a job that ended so long after its cancel was sent."""
    begun = () if while_it_was == "queued" else (running(1),)
    end = entries(CANCELLED, began_s=SENT_AT + took_s)
    cancel = Cancel(SENT_AT, while_it_was, crowding)
    return verdict(
        order("a", state="cancelled", picture=None, cancel=cancel),
        records={"a": job("a", "cancelled")},
        streams={"a": [*entries(QUEUED, *begun, every_s=0.1), *end]},
        faults=faults,
    )


@pytest.mark.parametrize(
    ("while_it_was", "took_s", "crowding", "slow"),
    [
        ("queued", 0.09, 1.0, False),
        ("queued", 0.11, 1.0, True),
        ("queued", 0.11, 2.0, False),
        ("running", 1.0, 1.0, False),
        ("running", 1.1, 1.0, True),
        ("running", 1.1, 2.0, False),
    ],
)
def test_what_is_cancelled_ends_in_time(while_it_was, took_s, crowding, slow):
    """On a machine with a core for everybody; else in as many times that as want each core."""
    done = cancelled(while_it_was, took_s, crowding=crowding)

    assert done.cancels_judged_s == {("generation", while_it_was): [pytest.approx(took_s)]}
    assert bool(done.slow_cancels) is slow
    assert done.clean is not slow
    assert done.cancelled_s == done.cancels_judged_s


@pytest.mark.parametrize(
    ("fault", "judged"),
    [
        pytest.param(Fault("worker killed", SENT_AT - 9.9), False, id="before"),
        pytest.param(Fault("worker killed", SENT_AT - 10.1), True, id="long before"),
        pytest.param(Fault("disk filled", SENT_AT - 13.0, lasted_s=4.0), False, id="lasting"),
        pytest.param(Fault("worker killed", SENT_AT - 10.1, took_s=0.3), False, id="long to do"),
        pytest.param(Fault("worker killed", SENT_AT - 19.0, crowding=2.0), False, id="crowded"),
        pytest.param(Fault("worker killed", SENT_AT + 0.9), False, id="while it is to end"),
        pytest.param(Fault("worker killed", SENT_AT + 1.1), True, id="when it is late already"),
        pytest.param(Fault("training killed", SENT_AT), True, id="of trainers"),
    ],
)
def test_a_cancel_near_a_fault_is_not_judged(fault, judged):
    done = cancelled("running", 5.0, fault)

    assert bool(done.cancels_judged_s) is judged
    assert bool(done.slow_cancels) is judged


def test_a_cancel_that_nobody_obeyed_is_slow():
    """One with its last step behind it may succeed all the same."""

    def succeeded(after_s: float):
        end = entries(SUCCEEDED, began_s=SENT_AT + after_s)
        stream = [*entries(QUEUED, running(1), every_s=0.1), *end]
        return verdict(order("a", cancel=Cancel(SENT_AT, "running")), streams={"a": stream})

    assert succeeded(0.9).clean
    assert len(succeeded(3.0).slow_cancels) == 1
    assert not succeeded(3.0).cancelled_s


def test_what_was_cancelled_while_queued_is_drawn_by_nobody():
    done = verdict(order("a", cancel=Cancel(100.0, "queued")))

    assert done.doubled == ["job a was cancelled while queued, and succeeded then"]


def test_what_nobody_cancelled_is_not_cancelled():
    stream = {"a": entries(QUEUED, CANCELLED)}
    seen = order("a", state="cancelled", picture=None)
    done = verdict(seen, records={"a": job("a", "cancelled")}, streams=stream)

    assert done.lost == ["job a was cancelled by nobody"]
    assert not done.cancels_judged_s
