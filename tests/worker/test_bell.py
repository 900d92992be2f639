"""A cancellation reaches the worker that draws at once, and no other."""

import json
import os
import select
import subprocess
import sys
import time

import pytest

from core.jobs import JobState
from core.leasing import cancelled_channel
from core.redis_connection import connect
from core.specs import GenerationSpec
from worker.bell import Bell
from worker.heartbeat import Heartbeat

OWNER = "inference-0@test"
ENOUGH_S = 20.0


@pytest.fixture
def client(redis_url):
    with connect(redis_url) as one:
        yield one


@pytest.fixture
def lease(jobs):
    jobs.submit("a" * 32, GenerationSpec(prompt="a cat"), queue_class="emoji")
    (lease,) = jobs.leasing.claim("generation", OWNER, slots=1, lease_s=60, idle=True)
    return lease


def wait_for(condition) -> None:
    deadline = time.monotonic() + ENOUGH_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_heard(client, owner: str) -> bool:
    return client.pubsub_numsub(cancelled_channel(owner))[0][1] == 1


def rings(bell: Bell, within_s: float) -> bool:
    return bool(select.select([bell], [], [], within_s)[0])


def test_it_rings_for_its_own_worker_alone_and_until_it_is_silenced(
    client, redis_url, jobs, lease
):
    mine, other = (Bell(connect(redis_url), owner) for owner in (OWNER, "inference-1@test"))
    for bell, owner in ((mine, OWNER), (other, "inference-1@test")):
        bell.start()
        wait_for(lambda owner=owner: is_heard(client, owner))
    jobs.cancel(lease.job_id)

    assert rings(mine, ENOUGH_S)
    mine.silence()
    assert not rings(mine, 0)
    assert not rings(other, 0)


SLOWLY = "import worker.heartbeat as beat; beat.MAX_PERIOD_S = 3600.0; beat.main()"


def test_the_worker_is_told_before_the_next_beat(
    client, redis_url, tmp_path, monkeypatch, jobs, lease
):
    """Which is an hour away."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("TRCE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TRCE_LEASE_S", "36000")
    command = [sys.executable, "-c", SLOWLY, OWNER, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        leases = {"leases": [(lease.job_id, lease.token)]}
        process.stdin.write(json.dumps(leases).encode() + b"\n")
        process.stdin.flush()
        wait_for(lambda: is_heard(client, OWNER))
        jobs.cancel(lease.job_id)

        assert select.select([process.stdout], [], [], ENOUGH_S)[0]
        told = json.loads(process.stdout.readline())
        assert told == {f"{lease.job_id}:{lease.token}": "cancelled"}
        process.stdin.close()


class CancellingHeartbeat(Heartbeat):
    """Cancels a job after a step, and waits until its worker could know."""

    def __init__(self, owner, jobs, job_id):
        super().__init__(owner)
        self.steps = 0
        self._jobs, self._job_id = jobs, job_id

    def step(self) -> None:
        super().step()
        self.steps += 1
        if self.steps == 3:
            self._jobs.cancel(self._job_id)
            wait_for(lambda: "cancelled" in self._verdicts.values())


def test_no_step_is_drawn_after_it_is_known(
    settings, monkeypatch, jobs, submit, make_batcher, client
):
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("TRCE_DATA_DIR", str(settings.data_dir))
    job_id = submit(num_inference_steps=50)
    heartbeat = CancellingHeartbeat(OWNER, jobs, job_id)
    wait_for(lambda: is_heard(client, OWNER))
    make_batcher(heartbeat=heartbeat).drain()
    heartbeat.close()

    assert jobs.get(job_id).state is JobState.CANCELLED
    assert heartbeat.steps == 3
