"""What was left on a worker's host goes, whether or not a service runs there."""

import os
import subprocess
import sys
import uuid

import pytest

from core.errors import Misconfigured, StoreUnavailable
from core.installation import leavings_of
from core.job_store import JobStore
from core.jobs import JobState
from core.leavings import LEAVINGS, Leavings
from core.redis_connection import connect
from core.specs import Concept, ErasureSpec
from core.terms import terms
from worker.tidying import Tidying
from worker.trainer_leavings import TrainerLeavings

AXE = ErasureSpec(base_model="emoji", concepts=(Concept(name="axe", replacement="flower"),))
WITHIN_S = 60


@pytest.fixture
def begin(jobs, settings):
    """A job that was begun, and what its attempt left; it runs, or waits for its next attempt."""

    def begin(*, waits: bool = True, **terms):
        job_id = uuid.uuid4().hex
        jobs.submit(job_id, AXE, queue_class="emoji", **terms)
        (lease,) = jobs.leasing.claim(
            "erasure", "trainer-0@gone", slots=1, lease_s=60, idle=True, known=()
        )
        if waits:
            jobs.leasing.hand_back(lease, "shutting down")
        left = [
            settings.checkpoints_dir / job_id,
            settings.making_dir / f"job-{job_id}.0123456789abcdef",
        ]
        for folder in left:
            folder.mkdir(parents=True)
            (folder / "weights.safetensors").write_bytes(b"gigabytes")
        return job_id, left

    return begin


@pytest.fixture
def tidying(jobs, registry, settings) -> Tidying:
    """That of a trainer."""
    return Tidying(
        leavings_of(settings), lambda: TrainerLeavings(jobs, registry, settings.checkpoints_dir)
    )


def test_what_a_job_left_goes_when_it_is_cancelled_in_its_queue(jobs, begin, tidying):
    job_id, left = begin()
    tidying()
    assert all(folder.exists() for folder in left)

    jobs.cancel(job_id)
    tidying()

    assert not any(folder.exists() for folder in left)


def test_what_a_job_left_goes_when_it_is_late_in_its_queue(jobs, begin, tidying, redis_client):
    job_id, left = begin(deadline_s=1000)
    redis_client.zadd("deadlines", {job_id: 1})
    jobs.leasing.reap()
    assert jobs.get(job_id).state is JobState.FAILED

    tidying()

    assert not any(folder.exists() for folder in left)


def test_what_is_worked_on_stays(jobs, begin, tidying):
    job_id, left = begin(waits=False)
    jobs.cancel(job_id)

    tidying()

    assert jobs.get(job_id).state is JobState.RUNNING
    assert all(folder.exists() for folder in left)


def test_while_redis_is_away_what_jobs_left_stays(begin, registry, settings, tmp_path):
    _, left = begin()
    with connect(f"unix://{tmp_path}/nobody.sock", retry_s=0) as client:
        away = JobStore(client, terms(settings))
        tidying = Tidying(
            Leavings(), lambda: TrainerLeavings(away, registry, settings.checkpoints_dir)
        )
        with pytest.raises(StoreUnavailable):
            tidying()

    assert all(folder.exists() for folder in left)


def test_keys_may_come_later_than_the_worker(jobs, begin, registry, settings):
    job_id, left = begin()
    jobs.cancel(job_id)
    asked = []

    def open_of_jobs() -> TrainerLeavings:
        asked.append(1)
        if len(asked) == 1:
            raise Misconfigured("no keys yet")
        return TrainerLeavings(jobs, registry, settings.checkpoints_dir)

    tidying = Tidying(Leavings(), open_of_jobs)
    with pytest.raises(Misconfigured):
        tidying()
    tidying()
    tidying()

    assert not any(folder.exists() for folder in left)
    assert len(asked) == 2


def test_half_a_model_that_was_fetched_goes_where_no_service_runs(settings, monkeypatch):
    left = settings.models_dir / ".incoming" / "fetch-sd15.0123456789abcdef"
    left.mkdir(parents=True)
    monkeypatch.setitem(LEAVINGS, "fetch-*", 0.0)

    Tidying(leavings_of(settings))()

    assert not left.exists()


def test_a_worker_that_sees_no_part_of_the_data_folder_is_quiet(settings, tmp_path):
    Tidying(leavings_of(settings.model_copy(update={"data_dir": tmp_path / "nothing"})))()

    assert not (tmp_path / "nothing").exists()


TIDY = """
import pathlib, sys, time
import worker.app

worker.app.sweep()
left = pathlib.Path(sys.argv[1])
until = time.monotonic() + float(sys.argv[2])
while left.exists() and time.monotonic() < until:
    time.sleep(0.05)
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize(("role", "stays"), [("trainer", False), ("inference", True)])
def test_the_parent_of_a_worker_clears_up_at_its_start_without_torch(
    jobs, begin, settings, role, stays
):
    """An inference worker sees nothing of what jobs of a trainer leave."""
    job_id, (checkpoints, _) = begin()
    jobs.cancel(job_id)
    environ = {
        "REDIS_URL": settings.redis_url,
        "TRCE_DATA_DIR": str(settings.data_dir),
        "TRCE_ROLE": role,
        "TRCE_OWNER": f"{role}-0@test",
    }

    subprocess.run(
        [sys.executable, "-c", TIDY, str(checkpoints), "3" if stays else str(WITHIN_S)],
        env=os.environ | environ,
        check=True,
    )

    assert checkpoints.exists() == stays
