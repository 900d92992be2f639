"""Whoever waits for a job is told of its end, not left to find out."""

import asyncio
import contextlib
import sys
import threading
import uuid

import pytest
from redis.exceptions import ConnectionError as RedisAway

from core.job_news import ENDED
from core.redis_connection import connect
from core.specs import GenerationSpec
from service.endings import Endings
from tests.service.scenery import eventually

TOLD_WITHIN_S = 10.0


@pytest.fixture
def client(settings):
    with connect(settings.redis_url) as client:
        yield client


@pytest.fixture
def closing():
    return threading.Event()


@pytest.fixture
def endings(client, closing):
    endings = Endings(client, closing)
    endings.start()
    eventually(lambda: dict(client.pubsub_numsub(ENDED))[ENDED] == 1)
    yield endings
    endings.stop()


def submit(jobs) -> str:
    job_id = uuid.uuid4().hex
    jobs.submit(job_id, GenerationSpec(prompt="a cat"), queue_class="emoji")
    return job_id


def draw_all(jobs) -> None:
    for lease in jobs.leasing.claim("generation", "w", slots=8, lease_s=60, idle=True):
        jobs.leasing.succeed(lease, {"model": "emoji", "images": []})


async def is_told(endings, job_id: str, action) -> bool:
    with endings.of(job_id) as told:
        await asyncio.to_thread(action)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), TOLD_WITHIN_S)
        return told.is_set()


def test_the_end_of_a_job_is_told(jobs, endings):
    job_id = submit(jobs)

    assert asyncio.run(is_told(endings, job_id, lambda: draw_all(jobs)))


def test_so_is_its_cancellation(jobs, endings):
    job_id = submit(jobs)

    assert asyncio.run(is_told(endings, job_id, lambda: jobs.cancel(job_id)))


def test_everyone_who_waits_for_a_job_is_told(jobs, endings):
    job_id = submit(jobs)
    drawn = threading.Event()

    async def both() -> list[bool]:
        def draw() -> None:
            if not drawn.is_set():
                drawn.set()
                draw_all(jobs)

        first = is_told(endings, job_id, lambda: None)
        return await asyncio.gather(first, is_told(endings, job_id, draw))

    assert asyncio.run(both()) == [True, True]


def test_the_end_of_another_job_is_not_told(jobs, endings, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "TOLD_WITHIN_S", 0.3)
    submit(jobs)

    assert not asyncio.run(is_told(endings, "another", lambda: draw_all(jobs)))


def test_it_listens_again_when_redis_was_away(client, jobs, endings):
    client.client_kill_filter(_type="pubsub")
    eventually(lambda: dict(client.pubsub_numsub(ENDED))[ENDED] == 1)
    job_id = submit(jobs)

    assert asyncio.run(is_told(endings, job_id, lambda: draw_all(jobs)))


def test_what_ended_while_redis_was_away_is_looked_for(client, jobs, endings):
    job_id = submit(jobs)

    def away() -> None:
        client.client_kill_filter(_type="pubsub")

    assert asyncio.run(is_told(endings, job_id, away))


def test_everybody_is_told_when_the_process_is_to_close(jobs, endings, closing):
    assert asyncio.run(is_told(endings, submit(jobs), closing.set))


def test_even_while_redis_is_away(settings, jobs, closing, monkeypatch):
    monkeypatch.setattr("service.endings.TRIES_EVERY_S", 0.05)
    with connect(settings.redis_url) as client:
        monkeypatch.setattr(client, "pubsub", _away)
        endings = Endings(client, closing)
        endings.start()
        try:
            assert asyncio.run(is_told(endings, submit(jobs), closing.set))
        finally:
            endings.stop()


def _away():
    raise RedisAway("it was killed")
