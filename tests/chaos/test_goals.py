"""A run that did less than it was to do says so."""

from tests.chaos.goals import Goals

GOALS = Goals(jobs=10, erasures=2, faults={"worker killed": 3, "training killed": 1}, minutes=1.0)


def test_goals_that_are_reached_are_not_missed():
    reached = {"worker killed": 3, "training killed": 2}

    assert GOALS.missed(jobs=12, erasures=2, happened=reached) == []


def test_each_goal_that_is_missed_is_named_with_what_it_was():
    missed = GOALS.missed(jobs=9, erasures=1, happened={"worker killed": 2})

    assert missed == [
        "10 jobs accepted, it was 9",
        "2 erasures ended, it was 1",
        "3 times worker killed, it was 2",
        "1 times training killed, it was 0",
    ]


def test_what_cannot_be_done_here_is_no_goal():
    without = GOALS.without("worker killed").without("training killed")

    assert without.missed(jobs=10, erasures=2, happened={}) == []


def test_faults_of_trainers_have_a_schedule_of_their_own():
    assert GOALS.faults_by_schedule() == ({"worker killed": 3}, {"training killed": 1})
