"""Jobs that used up their attempts, those beside them, and another try."""

import uuid
from dataclasses import replace

import pytest

from core.errors import JobNotFailed, JobNotFound, QueueFull, TenantQueueFull
from core.job_store import JobStore
from core.jobs import JobState
from core.redis_connection import connect
from core.specs import GenerationSpec
from core.terms import terms

CAT = GenerationSpec(prompt="a cat", seed=1)


def submit(jobs, **options) -> str:
    return jobs.submit(uuid.uuid4().hex, CAT, queue_class="emoji", **options).job_id


def claim(jobs, *, slots=8, owner="w"):
    return jobs.leasing.claim("generation", owner, slots=slots, lease_s=30, idle=True)


def exhaust(jobs) -> None:
    """Every attempt of everything that waits."""
    while claim(jobs):
        jobs.leasing.take_back("w")


@pytest.fixture
def dead(jobs) -> str:
    job_id = submit(jobs)
    exhaust(jobs)
    return job_id


def test_what_used_up_its_attempts_is_listed_latest_first(jobs, dead):
    later = submit(jobs, tenant="acme")
    exhaust(jobs)

    assert [job.id for job in jobs.lists.dead()] == [later, dead]
    assert "gave up after 5 attempts" in jobs.lists.dead()[1].reason


def test_what_failed_for_a_reason_of_its_own_is_no_dead_letter(jobs):
    submit(jobs)
    (lease,) = claim(jobs)
    jobs.leasing.fail(lease, "no such size")

    assert jobs.lists.dead() == []


def test_a_retry_gives_as_many_attempts_as_before_and_leaves_the_list(jobs, dead):
    job = jobs.retry(dead)

    assert (job.state, job.reason, job.finished_at) == (JobState.QUEUED, None, None)
    assert jobs.lists.dead() == []
    exhaust(jobs)
    assert "gave up after 10 attempts" in jobs.get(dead).reason


def test_a_job_tried_again_may_succeed_and_is_kept_until_then(settings, dead):
    with connect(settings.redis_url) as client:
        brief = {"generation": replace(terms(settings)["generation"], keep_s=0.2)}
        jobs = JobStore(client, brief)
        jobs.retry(dead)
        assert client.ttl(f"job:{dead}") == client.ttl(f"events:{dead}") == -1
        (lease,) = claim(jobs)
        assert lease.alone
        assert jobs.leasing.succeed(lease, {"n": 1})

    job = jobs.get(dead)
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"n": 1})


def test_its_tenants_count_of_open_jobs_is_right_afterwards(settings, jobs, dead):
    jobs.retry(dead)
    with connect(settings.redis_url) as client:
        assert client.hget("open:generation", "local") == "1"
        jobs.leasing.succeed(claim(jobs)[0], {})
        assert client.hget("open:generation", "local") is None


def test_its_history_goes_on(jobs, dead):
    jobs.retry(dead)
    states = [fields["state"] for _, fields in jobs.news.events(dead)]

    assert states[-2:] == ["failed", "queued"]


@pytest.mark.parametrize("end", ["waiting", "running", "succeeded", "cancelled"])
def test_only_a_failed_job_is_tried_again(jobs, end):
    job_id = submit(jobs)
    if end in {"running", "succeeded"}:
        (lease,) = claim(jobs)
        if end == "succeeded":
            jobs.leasing.succeed(lease, {})
    if end == "cancelled":
        jobs.cancel(job_id)

    with pytest.raises(JobNotFailed, match="only a failed job"):
        jobs.retry(job_id)


@pytest.mark.parametrize("since", ["waiting", "running", "succeeded", "cancelled"])
def test_a_retry_can_be_repeated_and_changes_nothing_then(jobs, dead, since):
    """The first answer may have been lost."""
    jobs.retry(dead)
    if since in {"running", "succeeded"}:
        (lease,) = claim(jobs)
        if since == "succeeded":
            jobs.leasing.succeed(lease, {})
    if since == "cancelled":
        jobs.cancel(dead)
    before = jobs.get(dead), jobs.news.events(dead), jobs.counts.queued("generation")

    assert jobs.retry(dead) == before[0]
    assert (jobs.get(dead), jobs.news.events(dead), jobs.counts.queued("generation")) == before


def test_what_failed_again_is_tried_once_more(jobs, dead):
    jobs.retry(dead)
    exhaust(jobs)

    assert jobs.retry(dead).state is JobState.QUEUED
    exhaust(jobs)
    assert "gave up after 15 attempts" in jobs.get(dead).reason


def test_a_retry_counts_among_its_tenants_unfinished_jobs(jobs, dead):
    submit(jobs)

    with pytest.raises(TenantQueueFull, match="you have 1 unfinished"):
        jobs.retry(dead, max_open=1)
    assert [job.id for job in jobs.lists.dead()] == [dead]
    assert jobs.retry(dead, max_open=2).state is JobState.QUEUED
    assert jobs.retry(dead, max_open=2).state is JobState.QUEUED


def test_a_job_that_is_gone_is_not_tried_again(jobs):
    with pytest.raises(JobNotFound):
        jobs.retry("0" * 32)


def test_a_full_queue_takes_no_retry_either(settings, jobs, dead):
    small = {"generation": replace(terms(settings)["generation"], max_queued=1)}
    bounded = JobStore(connect(settings.redis_url), small)
    submit(bounded)

    with pytest.raises(QueueFull):
        bounded.retry(dead)
    assert [job.id for job in bounded.lists.dead()] == [dead]


def test_an_expired_job_leaves_the_list(settings):
    brief = {"generation": replace(terms(settings)["generation"], keep_s=0)}
    jobs = JobStore(connect(settings.redis_url), brief)
    submit(jobs)
    with connect(settings.redis_url) as client:
        while claim(jobs):
            for job_id in client.smembers("owner:w"):
                token = client.hget(f"job:{job_id}", "token")
                jobs.leasing.give_back([(job_id, token)], "its worker died")
        assert jobs.lists.dead() == []
        assert client.llen("dead") == 0


def test_a_poison_job_burns_at_most_one_attempt_of_its_neighbours(jobs):
    """Whatever holds it dies; 23 others are in its batches, and come while it is being tried."""
    poison = submit(jobs)
    innocent = [submit(jobs) for _ in range(15)]
    while leases := claim(jobs):
        if any(lease.job_id == poison for lease in leases):
            jobs.leasing.take_back("w")
            innocent += [submit(jobs) for _ in range(2)]
        else:
            for lease in leases:
                assert jobs.leasing.succeed(lease, {})

    assert [job.id for job in jobs.lists.dead()] == [poison]
    done = [jobs.get(job_id) for job_id in innocent]
    assert {job.state for job in done} == {JobState.SUCCEEDED}
    assert max(job.attempt for job in done) == 2
