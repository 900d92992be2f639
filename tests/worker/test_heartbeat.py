"""The heartbeat process itself, against a real broker."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from core.jobs import JobState, Lease
from core.redis_connection import connect
from core.specs import GenerationSpec
from core.workers import WorkerRoll
from worker.heartbeat import Heartbeat
from worker.marks import beat_file, drain_mark

LEASE_S = 0.6
LEASE = Lease(job_id="a", token="1", attempt=1, alone=False, spec=GenerationSpec(prompt="a"))


@pytest.fixture
def env(monkeypatch, redis_url, tmp_path):
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("TRCE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TRCE_LEASE_S", str(LEASE_S))
    return tmp_path


@pytest.fixture
def heartbeat(env):
    beating = Heartbeat("inference-0@test")
    beating.begin()
    yield beating
    beating.close()


@pytest.fixture
def lease(heartbeat, jobs) -> Lease:
    jobs.submit("a" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji")
    (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=LEASE_S, idle=True)
    heartbeat.hold([lease])
    return lease


def wait_for(verdict: str, heartbeat: Heartbeat, lease: Lease) -> None:
    deadline = time.monotonic() + 10
    while heartbeat.verdict(lease) != verdict:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_first_beat_is_waited_for(env):
    beating = Heartbeat("inference-0@test")
    assert not beat_file(env / "run", "inference-0@test").exists()

    beating.begin()
    assert beat_file(env / "run", "inference-0@test").exists()
    beating.close()


def test_a_held_lease_outlives_many_of_its_terms(heartbeat, lease, jobs):
    for _ in range(10):
        time.sleep(LEASE_S / 2)
        assert jobs.leasing.reap() == 0


def test_a_lease_that_is_let_go_lapses(heartbeat, lease, jobs):
    heartbeat.hold([])
    time.sleep(3 * LEASE_S)

    assert jobs.leasing.reap() == 1


def test_a_cancel_reaches_the_worker(heartbeat, lease, jobs):
    jobs.cancel(lease.job_id)

    wait_for("cancelled", heartbeat, lease)


class TestStandingIn:
    def test_what_is_cancelled_while_the_worker_loads_a_model_ends(self, heartbeat, lease, jobs):
        with heartbeat.standing_in():
            jobs.cancel(lease.job_id)
            wait_for("lost", heartbeat, lease)

        assert jobs.get(lease.job_id).state is JobState.CANCELLED
        # Once the worker gets to it, too, that changes nothing.
        jobs.leasing.fail(lease, "why")
        assert jobs.get(lease.job_id).state is JobState.CANCELLED

    def test_so_does_what_was_cancelled_before(self, heartbeat, lease, jobs):
        jobs.cancel(lease.job_id)
        wait_for("cancelled", heartbeat, lease)
        with heartbeat.standing_in():
            wait_for("lost", heartbeat, lease)

        assert jobs.get(lease.job_id).state is JobState.CANCELLED

    def test_and_what_is_late(self, heartbeat, jobs):
        jobs.submit("b" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji", deadline_s=0.5)
        (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=LEASE_S, idle=True)
        heartbeat.hold([lease])
        with heartbeat.standing_in():
            wait_for("lost", heartbeat, lease)

        assert jobs.get(lease.job_id).state is JobState.FAILED
        assert "deadline" in jobs.get(lease.job_id).reason

    def test_afterwards_the_worker_ends_its_jobs_itself(self, heartbeat, lease, jobs):
        with heartbeat.standing_in():
            pass
        jobs.cancel(lease.job_id)
        wait_for("cancelled", heartbeat, lease)
        time.sleep(3 * LEASE_S)

        assert jobs.get(lease.job_id).state is JobState.RUNNING


def test_so_does_the_loss_of_the_lease(heartbeat, lease, jobs):
    jobs.leasing.take_back("w")

    wait_for("lost", heartbeat, lease)


def test_a_verdict_on_one_attempt_says_nothing_of_the_next(heartbeat, lease, jobs):
    jobs.leasing.take_back("w")
    wait_for("lost", heartbeat, lease)
    (again,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=30, idle=True)

    assert heartbeat.verdict(again) is None


def test_the_worker_is_on_the_roll(heartbeat, redis_url):
    with connect(redis_url) as client:
        roll = WorkerRoll(client)
        deadline = time.monotonic() + 5
        while roll.present("inference", within_s=5) != ["inference-0@test"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("draining", "attempt", "why"),
    [
        pytest.param(False, 1, "its worker died", id="of itself"),
        pytest.param(True, 0, "its worker is shutting down", id="told to stop, and too slow"),
    ],
)
def test_what_a_dead_worker_held_waits_again_before_its_lease_lapses(
    env, worker, jobs, monkeypatch, draining, attempt, why
):
    monkeypatch.setenv("TRCE_LEASE_S", "60")
    jobs.submit("a" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji")
    (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
    process, _ = worker(step_timeout_s=60, lease=lease)
    while not beat_file(env / "run", "inference-0@test").exists():
        time.sleep(0.05)
    if draining:
        drain_mark(env / "run", "inference-0@test").touch()
    process.kill()
    process.wait()

    deadline = time.monotonic() + 20
    while (job := jobs.get(lease.job_id)).state != "queued":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert job.attempt == attempt
    assert jobs.news.events(lease.job_id)[-1][1]["why"] == why


def test_a_worker_that_dies_before_it_is_told_something_loses_nothing(env, jobs, monkeypatch):
    monkeypatch.setenv("TRCE_LEASE_S", "60")
    jobs.submit("a" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji")
    (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
    nobody_reads, writer = os.pipe()
    os.close(nobody_reads)
    command = [sys.executable, "-m", "worker.heartbeat", "inference-0@test", str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writer) as child:
        os.close(writer)
        assert child.stdin is not None
        held = [(lease.job_id, lease.token)]
        child.stdin.write(json.dumps({"leases": held}).encode() + b"\n")
        child.stdin.flush()
        while not beat_file(env / "run", "inference-0@test").exists():
            assert child.poll() is None
            time.sleep(0.05)

    assert child.returncode == 0
    assert jobs.get(lease.job_id).state == "queued"
    assert jobs.news.events(lease.job_id)[-1][1]["why"] == "its worker died"


def test_what_was_let_go_in_an_outage_waits_again_uncounted_once_it_is_over(
    env, broker, jobs, monkeypatch
):
    monkeypatch.setenv("TRCE_LEASE_S", "60")
    beating = Heartbeat("inference-0@test")
    beating.begin()
    jobs.submit("a" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji")
    (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
    beating.hold([lease])
    broker.kill()
    try:
        beating.let_go([lease])
    finally:
        broker.start()

    deadline = time.monotonic() + 20
    while (job := jobs.get(lease.job_id)).state != "queued":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    beating.close()
    assert job.attempt == 0
    assert not jobs.leasing.succeed(lease, {"n": 1}), "who let go has nothing more to say"


def test_what_was_given_to_another_since_is_not_taken_from_it(jobs):
    jobs.submit("a" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji")
    (old,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
    jobs.leasing.take_back("w")
    jobs.leasing.claim("generation", "other", slots=1, lease_s=60, idle=True)

    assert jobs.leasing.give_back([(old.job_id, old.token)], "its worker died") == 0
    assert jobs.get(old.job_id).state == "running"


WORKER = """
import sys, time
from core.jobs import Lease
from worker.heartbeat import Heartbeat
beat = Heartbeat("inference-0@test")
lease = Lease.model_validate_json(sys.argv[1])
beat.hold([lease])
print(beat._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(env, monkeypatch):
    """A process that holds a lease and does nothing more."""

    def start(
        step_timeout_s: float, lease: Lease = LEASE
    ) -> tuple[subprocess.Popen[bytes], psutil.Process]:
        monkeypatch.setenv("TRCE_STEP_TIMEOUT_S", str(step_timeout_s))
        command = [sys.executable, "-c", WORKER, lease.model_dump_json()]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        return started[-1], psutil.Process(int(started[-1].stdout.readline()))

    started: list[subprocess.Popen[bytes]] = []
    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_worker_that_hangs_is_killed(worker):
    process, _ = worker(step_timeout_s=1)

    assert process.wait(20) == -9


def test_a_worker_does_not_go_on_without_its_heartbeat(worker):
    process, child = worker(step_timeout_s=60)
    child.kill()

    assert process.wait(20) == -9


def test_the_heartbeat_ends_with_its_worker(worker):
    process, child = worker(step_timeout_s=60)
    process.kill()
    process.wait()

    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
