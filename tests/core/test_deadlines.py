"""A job with a deadline ends by then, whatever it is doing."""

import time

import pytest

from core.jobs import JobState
from core.redis_connection import connect
from tests.core.test_job_store import claim, only, submit

PAST_IT_S = 0.55
DEADLINE_S = 0.5


def assert_late(jobs, job_id: str, reason: str) -> None:
    job = jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert job.late
    assert reason in job.reason
    assert job.deadline == pytest.approx(job.created_at + DEADLINE_S, abs=0.01)
    assert [fields["state"] for _, fields in jobs.news.events(job_id)][-1] == "failed"
    assert jobs.counts.queued("generation") == 0


def test_one_that_waits_past_it_is_ended_by_whoever_sweeps(jobs):
    late, other = submit(jobs, deadline_s=DEADLINE_S), submit(jobs, deadline_s=60)
    jobs.leasing.reap()
    assert jobs.get(late).state is JobState.QUEUED

    time.sleep(PAST_IT_S)
    jobs.leasing.reap()

    assert only(claim(jobs)).job_id == other
    assert_late(jobs, late, "before it was begun")


def test_one_that_waits_past_it_is_never_claimed(jobs):
    late = [submit(jobs, deadline_s=DEADLINE_S) for _ in range(3)]
    good = submit(jobs)
    time.sleep(PAST_IT_S)

    assert only(claim(jobs)).job_id == good
    for job_id in late:
        assert_late(jobs, job_id, "before it was begun")


def test_a_worker_is_told_by_its_next_beat(jobs):
    submit(jobs, deadline_s=DEADLINE_S)
    lease = only(claim(jobs))
    held = [(lease.job_id, lease.token)]
    assert jobs.leasing.beat(held, lease_s=9) == {}

    time.sleep(PAST_IT_S)

    assert jobs.leasing.beat(held, lease_s=9) == {lease.job_id: "late"}


@pytest.mark.parametrize("end", ["lapsed lease", "second try", "restarted worker"])
def test_one_that_comes_back_too_late_does_not_wait_again(jobs, end):
    job_id = submit(jobs, deadline_s=DEADLINE_S)
    lease = only(claim(jobs, lease_s=DEADLINE_S))
    time.sleep(PAST_IT_S)

    match end:
        case "lapsed lease":
            assert jobs.leasing.reap() == 0
        case "second try":
            jobs.leasing.try_again(lease, "out of memory")
        case "restarted worker":
            assert jobs.leasing.take_back("w") == 0

    assert_late(jobs, job_id, "while it waited to be tried again")


def test_one_that_comes_back_in_time_keeps_its_deadline(jobs):
    job_id = submit(jobs, deadline_s=DEADLINE_S)
    jobs.leasing.hand_back(only(claim(jobs)), "its worker is shutting down")
    assert jobs.get(job_id).state is JobState.QUEUED

    time.sleep(PAST_IT_S)
    jobs.leasing.reap()

    assert_late(jobs, job_id, "before it was begun")


def test_one_that_ends_in_time_is_not_late(jobs):
    job_id = submit(jobs, deadline_s=DEADLINE_S)
    jobs.leasing.fail(only(claim(jobs)), "the model draws no cats")
    time.sleep(PAST_IT_S)
    jobs.leasing.reap()

    assert not jobs.get(job_id).late
    assert jobs.get(job_id).reason == "the model draws no cats"


def test_the_share_of_a_tenant_is_free_again(jobs):
    submit(jobs, deadline_s=DEADLINE_S, max_open=1)
    time.sleep(PAST_IT_S)
    jobs.leasing.reap()

    assert jobs.get(submit(jobs, max_open=1)).state is JobState.QUEUED


@pytest.mark.parametrize("end", ["swept", "lapsed lease", "worker that is gone"])
def test_whoever_ends_it_its_record_is_kept_as_long_as_any_of_its_kind(jobs, settings, end):
    """Not as long as erasures are, of which a sweep knows, too."""
    job_id = submit(jobs, deadline_s=DEADLINE_S)
    leases = [] if end == "swept" else claim(jobs, lease_s=DEADLINE_S)
    time.sleep(PAST_IT_S)

    if end == "worker that is gone":
        jobs.leasing.give_back([(one.job_id, one.token) for one in leases], "its worker died")
    else:
        jobs.leasing.reap()

    assert jobs.get(job_id).late
    with connect(settings.redis_url) as client:
        for key in (f"job:{job_id}", f"events:{job_id}"):
            kept_s = client.pttl(key) / 1000
            assert kept_s == pytest.approx(settings.keep_generations_s, abs=5)
