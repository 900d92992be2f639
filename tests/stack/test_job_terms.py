"""On what terms jobs live, over a live stack: long, in turns, cancelled, late, forgotten.

The device is simulated, so a step takes 0.5 s on every machine, and one job is drawn at a time.
Times are reported (`pytest -s`); what is asserted is what a client sees, and of cancelling how
long it takes, longer only on a machine that is crowded (`tests/crowding.py`).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from benchmarks.serving.scaling import simulated_workers
from benchmarks.serving.simulated_workers import PICTURE_S, STEP_S
from benchmarks.stack import running_stack
from core.keys import KeyStore
from core.redis_connection import connect
from tests.crowding import crowding

pytestmark = pytest.mark.stack

LEASE_S = 2.0
LEASES = 20
LONG_STEPS = 100
TOGETHER = 8
"""Pictures of each job, and of a batch."""
ENV = {"TRCE_LEASE_S": str(LEASE_S), "TRCE_BATCH_ROWS": str(TOGETHER)}
WITHIN_S = 300.0
SEVERAL = 5
QUEUED_S = 0.1
"""From asking to cancel what waits to its end; of what runs a second more than a step."""
LONG_AGO_S = 90 * 24 * 3600


@pytest.fixture(scope="module")
def stack():
    with (
        running_stack(workers=0, **ENV, TRCE_TRAINER_WORKERS="1") as stack,
        simulated_workers(stack, 1, first=0, **ENV),
    ):
        yield stack


@pytest.fixture(scope="module")
def client_of(stack):
    """An HTTP client of a tenant. With the first one's key nobody is let in without any more."""
    clients = []

    def make(tenant: str) -> httpx.Client:
        with connect(stack.settings.redis_url) as redis:
            _, token = KeyStore(redis).create(scopes=["generate", "erase"], tenant=tenant)
        headers = {"Authorization": f"Bearer {token}"}
        clients.append(httpx.Client(base_url=stack.url, headers=headers, timeout=30))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def acme(client_of):
    return client_of("acme")


def ask(client: httpx.Client, *, steps: int, **fields) -> str:
    body = {"prompt": "a cat", "model": "emoji", "n": TOGETHER, "num_inference_steps": steps}
    return (
        client.post("/v1/generations", json=body | fields).raise_for_status().headers["Location"]
    )


def until(happens, *, within_s: float = WITHIN_S):
    deadline = time.monotonic() + within_s
    while True:
        try:
            if found := happens():
                return found
        except httpx.TransportError:
            pass  # the service is being started again
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def job(client: httpx.Client, path: str) -> dict:
    return client.get(path).raise_for_status().json()


def ended(client: httpx.Client, path: str) -> dict:
    return until(
        lambda: (found := job(client, path))["state"] not in {"queued", "running"} and found
    )


def running(client: httpx.Client, path: str, *, step: int = 1) -> dict:
    """The job once it has done so many steps."""
    return until(
        lambda: (
            (found := job(client, path))["state"] == "running"
            and (found["progress"] or {"done": 0})["done"] >= step
            and found
        )
    )


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


@pytest.fixture(scope="module")
def long_job(acme):
    path = ask(acme, steps=LONG_STEPS)
    running(acme, path)
    return path


def left_behind(folder: Path, *, age_s: float) -> Path:
    """A folder with a file in it, untouched for so long."""
    folder.mkdir(parents=True)
    (folder / "left.png").write_bytes(b"left behind")
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_what_belongs_to_no_job_any_more_is_deleted(stack, acme, long_job):
    """By a service when it starts, and by a trainer after each job."""
    data, settings = stack.settings.data_dir, stack.settings
    pictures = settings.images_dir / "generations"
    forgotten = left_behind(pictures / uuid4().hex, age_s=LONG_AGO_S)
    of_a_job = left_behind(pictures / long_job.rpartition("/")[2], age_s=LONG_AGO_S)
    not_yet_known = left_behind(pictures / uuid4().hex, age_s=0)
    half_made = left_behind(settings.making_dir / f"job-{uuid4().hex}.0a", age_s=0)
    checkpoint = left_behind(data / "checkpoints" / uuid4().hex, age_s=0)
    axe = {"name": "axe", "replacement": "flower"}
    asked = {"base_model": "emoji", "concepts": [axe]}
    erasure = acme.post("/v1/erasures", json=asked).raise_for_status().headers["Location"]
    until(lambda: job(acme, erasure)["state"] == "running")
    asked_at = time.time()
    acme.delete(erasure).raise_for_status()
    (service,) = (
        one
        for one in psutil.Process(stack.pid).children(recursive=True)
        if "-m service" in " ".join(one.cmdline())
    )
    service.kill()

    until(lambda: not forgotten.exists())
    assert of_a_job.exists()
    assert not_yet_known.exists()
    done = ended(acme, erasure)
    tell(f"an erasure that ran was cancelled in {done['finished_at'] - asked_at:.2f} s")
    assert done["state"] == "cancelled"
    until(lambda: not half_made.exists() and not checkpoint.exists())


def test_a_job_longer_than_twenty_leases_runs_once(acme, long_job):
    done = ended(acme, long_job)
    seconds = done["finished_at"] - done["started_at"]
    tell(f"ran {seconds:.1f} s, {seconds / LEASE_S:.0f} leases of {LEASE_S:g} s")

    history = acme.get(f"{long_job}/events").text
    told = [line for line in history.splitlines() if '"state": ' in line]
    assert (done["state"], done["attempt"]) == ("succeeded", 1), told
    assert seconds > LEASES * LEASE_S
    assert history.count('"state": "running"') == 1, told


def test_a_tenant_with_much_to_do_does_not_keep_another_waiting(acme, client_of):
    """Who comes second with two jobs gets every other turn: it is done when three of many are."""
    other = client_of("other")
    blocker = ask(acme, steps=4)
    running(acme, blocker)
    many = [ask(acme, steps=1, seed=seed) for seed in range(8)]
    few = [ask(other, steps=1, seed=seed) for seed in range(2)]
    last = max(ended(other, path)["finished_at"] for path in few)
    before = sum(ended(acme, path)["finished_at"] < last for path in many)
    tell(f"{before} of {len(many)} jobs of the first tenant were done before 2 of the second")

    assert before <= 3


def test_the_command_lists_what_is_open_and_cancels_it(stack, acme):
    path = ask(acme, steps=100)
    job_id = path.rpartition("/")[2]
    key = acme.headers["Authorization"].removeprefix("Bearer ")

    def trce(*words: str):
        command = [sys.executable, "-m", "cli.main", "jobs", *words, "--json", "--url", stack.url]
        done = subprocess.run(
            command, env=os.environ | {"TRCE_API_KEY": key}, capture_output=True, check=True
        )
        return json.loads(done.stdout)

    assert job_id in [one["id"] for one in trce("list")]
    assert trce("cancel", job_id[:12])["id"] == job_id
    assert ended(acme, path)["state"] == "cancelled"
    assert job_id not in [one["id"] for one in trce("list")]


def test_a_running_job_that_is_cancelled_stops_on_its_way(acme):
    path = ask(acme, steps=100)
    running(acme, path)
    asked_at = time.time()
    acme.delete(path).raise_for_status()
    done = ended(acme, path)
    step_s = STEP_S + PICTURE_S * TOGETHER
    tell(f"cancelled in {done['finished_at'] - asked_at:.2f} s, where a step takes {step_s:.2f} s")

    assert done["state"] == "cancelled"
    assert done["progress"]["done"] < 100
    assert done["images"][0]["finish_reason"] == "cancelled"
    assert done["finished_at"] - asked_at < (step_s + 1.0) * crowding()


def test_a_queued_job_that_is_cancelled_is_never_begun(acme):
    blocker = ask(acme, steps=8)
    running(acme, blocker)
    took_s = []
    for path in [ask(acme, steps=1, seed=seed) for seed in range(SEVERAL)]:
        asked_at = time.time()
        done = acme.delete(path).raise_for_status().json()
        assert (done["state"], done["attempt"]) == ("cancelled", 0)
        took_s.append(done["finished_at"] - asked_at)
    tell(f"cancelled while they waited in {statistics.median(took_s):.3f} s, the median")

    assert ended(acme, blocker)["state"] == "succeeded"
    assert job(acme, path)["attempt"] == 0
    assert statistics.median(took_s) < QUEUED_S * crowding()


def test_a_job_past_its_deadline_stops_on_its_way_and_says_so(acme):
    path = ask(acme, steps=100, deadline_s=1.0)
    done = ended(acme, path)
    tell(f"ended {done['finished_at'] - done['deadline']:.2f} s after its deadline")

    assert (done["state"], done["late"]) == ("failed", True)
    assert "deadline" in done["reason"]
    assert done["finished_at"] >= done["deadline"]
    assert done["progress"]["done"] < 100
