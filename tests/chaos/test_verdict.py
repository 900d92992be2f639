"""Each redelivery is put down to the fault that caused it, and judged by its time."""

import pytest

from tests.chaos.faults import Fault
from tests.chaos.test_checker import BACK, QUEUED, SUCCEEDED, entries, order, running, verdict


def test_a_redelivery_is_measured_from_the_fault_that_caused_it():
    stream = entries(QUEUED, running(1), BACK, running(2), SUCCEEDED)
    faults = [Fault("broker killed", 90.0), Fault("worker killed", 101.5)]
    done = verdict(order("a"), streams={"a": stream}, faults=faults)

    assert done.redelivered_s == {"worker killed": [pytest.approx(1.5)]}


def test_a_job_that_was_handed_back_counts_as_no_redelivery():
    back = BACK | {"why": "its worker is shutting down"}
    stream = entries(QUEUED, running(1), back, running(1), SUCCEEDED)
    done = verdict(order("a"), streams={"a": stream}, faults=[Fault("worker killed", 101.5)])

    assert done.all_redelivered_s == []


def redelivered(*faults: Fault, seconds: float = 1.0):
    stream = entries(QUEUED, running(1), BACK, running(2), SUCCEEDED, every_s=seconds)
    return verdict(order("a"), streams={"a": stream}, faults=faults)


def test_a_redelivery_that_no_fault_explains_is_told_of():
    done = redelivered(Fault("broker killed", 90.0), Fault("training killed", 101.5))

    assert done.unexplained == ["at 102.0: its worker was restarted"]
    assert done.all_redelivered_s == []


def test_a_job_that_was_begun_while_its_worker_was_chosen_feels_the_kill():
    assert redelivered(Fault("worker killed", 100.8)).unexplained
    assert not redelivered(Fault("worker killed", 100.8, took_s=0.3)).unexplained


def test_a_job_that_was_begun_while_a_fault_lasted_feels_it_where_nothing_else_struck():
    full = Fault("disk filled", 99.0, lasted_s=4.0)

    assert list(redelivered(full).redelivered_s) == ["disk filled"]
    assert list(redelivered(full, Fault("worker killed", 101.5)).redelivered_s) == [
        "worker killed"
    ]
    assert redelivered(Fault("disk filled", 96.0, lasted_s=4.0)).unexplained


@pytest.mark.parametrize(
    ("kind", "seconds", "crowding", "slow"),
    [
        ("pool child killed", 2.0, 1.0, False),
        ("pool child killed", 4.0, 1.0, True),
        ("pool child killed", 4.0, 2.0, False),
        ("worker killed", 4.0, 1.0, False),
        ("worker killed", 6.0, 1.0, True),
        ("broker frozen", 9.0, 1.0, False),
    ],
)
def test_a_kill_has_a_time_in_which_the_job_is_to_be_begun_again(kind, seconds, crowding, slow):
    """On a machine with a core for everybody; else in as many times that as want each core."""
    done = redelivered(Fault(kind, 100.0 + 2 * seconds, 0.0, crowding), seconds=seconds)

    assert [len(some) for some in done.redelivered_s.values()] == [1]
    assert bool(done.slow) is slow
    assert done.clean is not slow


def test_a_machine_that_grew_crowded_while_a_job_waited_is_an_excuse_too():
    """What a fault knows of it is an average of the minute before."""
    kill, later = Fault("pool child killed", 108.0), Fault("wakes dropped", 150.0, crowding=2.0)

    assert redelivered(kill, seconds=4.0).slow
    assert not redelivered(kill, later, seconds=4.0).slow


def test_of_those_that_one_death_interrupted_the_first_is_to_be_begun_again_in_time():
    """The others are drawn one by one."""

    def two(first_s: float, second_s: float):
        streams = {
            name: [
                *entries(QUEUED, running(1), BACK),
                *entries(running(2), SUCCEEDED, began_s=102.0 + took_s),
            ]
            for name, took_s in {"a": first_s, "b": second_s}.items()
        }
        return verdict(
            *(order("a"), order("b")),
            streams=streams,
            faults=[Fault("pool child killed", 102.0)],
        )

    assert not two(2.0, 9.0).slow
    assert len(two(4.0, 9.0).slow) == 1


def test_every_job_is_to_wait_again_in_time():
    stream = [*entries(QUEUED, running(1)), *entries(BACK, running(2), SUCCEEDED, began_s=106.0)]
    waiting, begun = verdict(
        order("a"), streams={"a": stream}, faults=[Fault("pool child killed", 101.5)]
    ).slow

    assert "waits again 4.5 s after" in waiting
    assert "the first is begun again 5.5 s after" in begun


def test_what_a_broker_gave_away_in_a_reply_that_was_lost_is_put_down_to_it():
    back = {"state": "queued", "why": "the broker was away when it was given to a worker"}
    stream = entries(QUEUED, running(1), back, running(2), SUCCEEDED)

    def told(kind: str):
        fault = Fault(kind, 93.0, lasted_s=7.0)
        return verdict(order("a"), streams={"a": stream}, faults=[fault])

    assert list(told("broker frozen").redelivered_s) == ["broker frozen"]
    assert told("worker frozen").unexplained


@pytest.mark.parametrize("other_at", [103.0, 115.0])
def test_a_kill_that_another_fault_overlaps_is_not_judged(other_at):
    faults = Fault("service killed", other_at), Fault("worker killed", 112.0)

    assert not redelivered(*faults, seconds=6.0).slow
