"""Samples of a running job: kept with its record, written by nobody who lost it."""

import uuid

import pytest
from pydantic import ValidationError

from core.redis_connection import connect
from core.samples import MAX_JPEG_CHARS, MAX_SAMPLES, Sample, Samples
from core.specs import ErasureSpec

SPEC = ErasureSpec(base_model="emoji", preset="weapons")
PICTURE = Sample(prompt="an axe", seed=0, jpeg="AAAA")


def a_round(after: str) -> Samples:
    return Samples(after=after, pictures=(PICTURE,))


@pytest.fixture
def lease(jobs):
    jobs.submit(uuid.uuid4().hex, SPEC, queue_class="emoji")
    (claimed,) = jobs.leasing.claim("erasure", "w", slots=1, lease_s=30.0, idle=True)
    return claimed


def test_what_is_shown_takes_the_place_of_what_was(jobs, lease):
    assert jobs.news.samples(lease.job_id) == []
    for shown in ([a_round("base")], [a_round("base"), a_round("step-20")]):
        assert jobs.leasing.show(lease, shown)
        assert jobs.news.samples(lease.job_id) == shown


def test_a_worker_that_lost_its_lease_shows_nothing(jobs, lease):
    jobs.leasing.take_back("w")

    assert not jobs.leasing.show(lease, [a_round("base")])
    assert jobs.news.samples(lease.job_id) == []


def test_they_go_with_the_record(jobs, lease, settings):
    jobs.leasing.show(lease, [a_round("base")])
    with connect(settings.redis_url) as redis:
        key = f"samples:{lease.job_id}"
        assert redis.pttl(key) == -1
        jobs.leasing.fail(lease, "too little memory")
        assert 0 < redis.pttl(key) <= redis.pttl(f"job:{lease.job_id}") + 1000
        jobs.retry(lease.job_id)
        assert redis.pttl(key) == -1


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"after": "yesterday"}, id="no moment"),
        pytest.param({"pictures": (PICTURE,) * (MAX_SAMPLES + 1)}, id="too many"),
        pytest.param(
            {"pictures": [{**PICTURE.model_dump(), "jpeg": "A" * (MAX_JPEG_CHARS + 1)}]},
            id="too large",
        ),
    ],
)
def test_they_are_bounded(wrong):
    with pytest.raises(ValidationError):
        Samples.model_validate({"after": "base", "pictures": ()} | wrong)
