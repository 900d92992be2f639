"""Who dies while it draws costs its jobs seconds, and a job that kills costs nobody else much.

Leases are so long that none of them lapses here: what is begun again was given back by the
heartbeat of the dead. Another worker is idle, as the promise of seconds supposes.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from cli.stack.broker import broker_url
from core.redis_connection import connect
from core.workers import KEY as BEATS
from tests.crowding import crowding
from tests.live_stack import Stack, words_of

pytestmark = pytest.mark.stack

LEASE_S = 120.0
ATTEMPTS = 3
CHILD_S, WORKER_S = 3.0, 5.0
"""From a death to the next start of what it interrupted."""
WITHIN_S = 120.0
LONG = {"num_inference_steps": 100, "n": 2}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        running = Stack(
            Path(folder) / "data",
            *("--inference-workers", "2"),
            TRCE_LEASE_S=str(LEASE_S),
            TRCE_GENERATION_ATTEMPTS=str(ATTEMPTS),
            TRCE_TRAINER_WORKERS="0",
        )
        running.start()
        yield running
        running.interrupt()
        running.http.close()


@pytest.fixture
def broker(stack) -> Iterator[redis.Redis]:
    """Once both workers of the stack wait for work."""
    with connect(broker_url(stack.data_dir / "broker")) as client:
        since = time.time()
        stack.wait_until(lambda: client.zcount(BEATS, since, "+inf") == 2, WITHIN_S)
        yield client


def owner_of(broker: redis.Redis, path: str) -> str:
    """The worker that holds a job, or held it last."""
    return broker.hget(f"job:{path.rpartition('/')[2]}", "owner") or ""


def worker_of(stack: Stack, broker: redis.Redis, path: str) -> psutil.Process:
    """Celery's parent, whose child draws a job."""
    return worker_named(stack, name_of(owner_of(broker, path)))


def name_of(owner: str) -> str:
    return owner.partition("@")[0].removeprefix("inference-")


def worker_named(stack: Stack, name: str) -> psutil.Process:
    # Who was forked a moment ago has its parent's words until it is another program.
    return min(stack.members(f"worker inference --name {name}"), key=psutil.Process.create_time)


def child_of(worker: psutil.Process) -> psutil.Process:
    """The one that draws."""
    (child,) = [one for one in worker.children() if "billiard.spawn" in words_of(one)]
    return child


def whys(broker: redis.Redis, path: str) -> list[str]:
    """Why a job waited again, each time that it did."""
    events = broker.xrange(f"events:{path.rpartition('/')[2]}")
    return [fields["why"] for _, fields in events if "why" in fields]


def job(stack: Stack, path: str) -> dict:
    return stack.http.get(path).raise_for_status().json()


def wait_for_attempt(stack: Stack, path: str, attempt: int) -> dict:
    seen: list[dict] = []

    def begun() -> bool:
        seen.append(job(stack, path))
        return seen[-1]["state"] != "queued" and seen[-1]["attempt"] >= attempt

    stack.wait_until(begun, WITHIN_S)
    return seen[-1]


@pytest.mark.parametrize(
    ("whose", "bound_s"), [("child", CHILD_S), ("worker", WORKER_S)], ids=["child", "worker"]
)
def test_what_a_dead_one_drew_is_begun_again_by_another_at_once(stack, broker, whose, bound_s):
    path = stack.generate(**LONG)
    wait_for_attempt(stack, path, 1)
    first, worker = owner_of(broker, path), worker_of(stack, broker, path)
    dying = child_of(worker) if whose == "child" else worker
    died_at = time.time()
    dying.kill()

    again = wait_for_attempt(stack, path, 2)
    took_s = again["started_at"] - died_at
    sys.stdout.write(
        f"begun again {took_s:.2f} s after a {whose} died, crowding {crowding():.1f}\n"
    )
    assert again["attempt"] == 2
    assert owner_of(broker, path) != first
    # By its heartbeat, and not when its successor had started, or the lease lapsed.
    assert whys(broker, path) == ["its worker died"]
    assert took_s < bound_s * crowding()
    assert stack.ended(path)["state"] == "succeeded"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_the_child_of_a_killed_worker_dies_though_nobody_looks_after_it(stack, broker):
    """An orphan would go on claiming."""
    path = stack.generate(**LONG)
    wait_for_attempt(stack, path, 1)
    worker = worker_of(stack, broker, path)
    child = child_of(worker)
    stack.process.suspend()
    try:
        worker.kill()
        stack.wait_until(lambda: is_dead(child), CHILD_S * crowding())
    finally:
        stack.process.resume()
    assert stack.ended(path)["state"] == "succeeded"


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_job_that_kills_whoever_draws_it_is_given_up_and_can_be_tried_again(stack, broker):
    poison = stack.generate("a dog", num_inference_steps=100, n=4)
    wait_for_attempt(stack, poison, 1)
    # So that the others are drawn beside it.
    (idle,) = {"0", "1"} - {name_of(owner_of(broker, poison))}
    child_of(worker_named(stack, idle)).suspend()
    try:
        others = [stack.generate(seed=seed, num_inference_steps=60) for seed in range(10)]
        stack.wait_until(lambda: job(stack, others[-1])["state"] == "running", WITHIN_S)
    finally:
        child_of(worker_named(stack, idle)).resume()
    for attempt in range(1, ATTEMPTS + 1):
        assert wait_for_attempt(stack, poison, attempt)["attempt"] == attempt
        child_of(worker_of(stack, broker, poison)).kill()

    given_up = stack.ended(poison)
    assert (given_up["state"], given_up["attempt"]) == ("failed", ATTEMPTS)
    assert given_up["reason"] == f"gave up after {ATTEMPTS} attempts: its worker died"
    ended = [stack.ended(path) for path in others]
    assert {one["state"] for one in ended} == {"succeeded"}
    assert max(one["attempt"] for one in ended) == 2

    (letter,) = stack.http.get("/v1/dead-letters").json()["data"]
    assert (letter["id"], letter["reason"]) == (given_up["id"], given_up["reason"])
    assert stack.http.post(letter["retry"]).status_code == 202
    assert stack.ended(poison)["state"] == "succeeded"
    assert job(stack, poison)["attempt"] == ATTEMPTS + 1
    assert stack.http.get("/v1/dead-letters").json()["data"] == []
