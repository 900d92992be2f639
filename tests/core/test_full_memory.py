"""Redis at the end of its memory, noeviction: new work is refused, old work goes on."""

import uuid

import pytest

from core.errors import StoreUnavailable
from core.jobs import JobState
from core.progress import Progress
from core.redis_connection import connect
from core.specs import GenerationSpec

CAT = GenerationSpec(prompt="a cat", seed=1)


def submit(jobs) -> str:
    return jobs.submit(uuid.uuid4().hex, CAT, queue_class="emoji").job_id


def claim(jobs):
    return jobs.leasing.claim("generation", "w", slots=1, lease_s=30, idle=True)


@pytest.fixture
def client(settings):
    with connect(settings.redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


def leave(client, share: float) -> None:
    """So much of the memory is used from now on."""
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] / share))


@pytest.mark.parametrize("used", [0.93, 1.5], ids=["nearly full", "overfull"])
def test_new_work_is_refused_and_leaves_no_trace(jobs, client, used):
    waiting = submit(jobs)
    leave(client, used)

    with pytest.raises(StoreUnavailable, match="nearly full"):
        submit(jobs)
    assert [job.id for job in jobs.lists.latest("generation")] == [waiting]
    assert jobs.counts.queued("generation") == 1


def test_a_retry_is_new_work(jobs, client):
    job_id = submit(jobs)
    jobs.leasing.fail(claim(jobs)[0], "no such size")
    leave(client, 0.93)

    with pytest.raises(StoreUnavailable, match="nearly full"):
        jobs.retry(job_id)
    leave(client, 0.5)
    assert jobs.retry(job_id).state is JobState.QUEUED
    leave(client, 0.93)
    assert jobs.retry(job_id).state is JobState.QUEUED, "a repetition is no new work"


def test_it_is_taken_again_when_there_is_room(jobs, client):
    leave(client, 1.5)
    with pytest.raises(StoreUnavailable):
        submit(jobs)
    leave(client, 0.5)

    submit(jobs)


def test_what_was_accepted_is_drawn_to_its_end(jobs, client):
    job_id = submit(jobs)
    leave(client, 1.5)

    (lease,) = claim(jobs)
    assert jobs.leasing.report(lease, Progress(stage="denoising", done=1, total=2))
    assert jobs.leasing.beat([(lease.job_id, lease.token)], lease_s=30) == {}
    assert jobs.leasing.hand_back(lease, "its worker is shutting down")
    (again,) = claim(jobs)
    assert jobs.leasing.take_back("w") == 1
    (last,) = claim(jobs)
    assert jobs.leasing.succeed(last, {"n": 1})

    assert again.job_id == job_id
    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert len(jobs.news.events(job_id)) == 8


def test_what_waits_can_be_cancelled(jobs, client):
    job_id = submit(jobs)
    leave(client, 1.5)

    assert jobs.cancel(job_id).state is JobState.CANCELLED


def test_a_plain_write_is_refused_then(client):
    """Or the memory was not full, and the tests above show nothing."""
    leave(client, 1.5)

    with pytest.raises(Exception, match="maxmemory"):
        client.set("anything", "at all")
