import asyncio
import threading
import uuid

import pytest

from core.redis_connection import connect
from core.specs import GenerationSpec
from service.endings import Endings
from service.waiting import ended, wait_s


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        pytest.param(None, 0, id="no header"),
        pytest.param("wait=10", 10, id="plain"),
        pytest.param('Wait = "7"', 7, id="quoted"),
        pytest.param("respond-async, wait=5", 5, id="second"),
        pytest.param("wait=5; x, return=minimal", 5, id="first"),
        pytest.param("wait=3600", 60, id="too long"),
        pytest.param("wait=" + "9" * 5000, 0, id="absurd"),
        pytest.param("wait=-1", 0, id="negative"),
        pytest.param("wait=soon", 0, id="no number"),
        pytest.param("await=9", 0, id="another word"),
        pytest.param("wait=²", 0, id="superscript"),
    ],
)
def test_a_preference_is_followed_where_it_makes_sense(prefer, seconds):
    assert wait_s(prefer) == seconds


@pytest.fixture
def deaf(settings):
    """Nobody is told of anything."""
    with connect(settings.redis_url) as client:
        yield Endings(client, threading.Event())


@pytest.fixture
def job(jobs):
    job_id = uuid.uuid4().hex
    jobs.submit(job_id, GenerationSpec(prompt="a cat"), queue_class="emoji")
    return jobs.get(job_id)


@pytest.fixture
def looks(jobs, monkeypatch):
    """The ids that the store was asked for."""
    asked = []
    get = jobs.get
    monkeypatch.setattr(jobs, "get", lambda job_id: asked.append(job_id) or get(job_id))
    return asked


def test_it_looks_for_itself_at_the_end_and_hardly_before(jobs, deaf, job, looks):
    jobs.cancel(job.id)
    looks.clear()

    waited = ended(jobs, deaf, job, within_s=1.5, closing=threading.Event())

    assert asyncio.run(waited).state == "cancelled"
    assert looks == [job.id]


def test_it_looks_now_and_then(jobs, deaf, job, monkeypatch):
    monkeypatch.setattr("service.waiting.LOOKS_EVERY_S", 0.1)
    threading.Timer(0.2, lambda: jobs.cancel(job.id)).start()

    waited = ended(jobs, deaf, job, within_s=3600, closing=threading.Event())

    assert asyncio.run(asyncio.wait_for(waited, 60)).state == "cancelled"


def test_nobody_waits_for_a_client_that_has_gone(jobs, deaf, job):
    async def wait() -> str:
        gone = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, gone.set_result, None)
        waited = ended(jobs, deaf, job, within_s=3600, closing=threading.Event(), gone=gone)
        return (await asyncio.wait_for(waited, 60)).state

    assert asyncio.run(wait()) == "queued"
