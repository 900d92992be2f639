"""A broker that hangs: it keeps its connections, and answers nothing."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.service.scenery import APPLE, eventually

CLIENTS = 120
"""Three times the threads that answer requests."""


def timed(request) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return request(), time.monotonic() - started


@pytest.fixture
def ask(start):
    address, _ = start()
    limits = httpx.Limits(max_connections=2 * CLIENTS)
    with httpx.Client(base_url=address, timeout=60, limits=limits) as client:
        yield client


def test_every_client_is_told_to_come_back_and_the_process_says_that_it_is_alive(ask, broker):
    assert ask.post("/v1/generations", json=APPLE).status_code == 202
    health = []
    with ThreadPoolExecutor(CLIENTS) as clients, broker.frozen():
        waiting = [
            clients.submit(timed, lambda: ask.post("/v1/generations", json=APPLE))
            for _ in range(CLIENTS)
        ]
        while not all(one.done() for one in waiting):
            health.append(timed(lambda: ask.get("/healthz")))
            time.sleep(0.2)
        # It is known by now: most are told at once.
        later = [timed(lambda: ask.post("/v1/generations", json=APPLE)) for _ in range(20)]

    answers = [one.result() for one in waiting] + later
    assert {answer.status_code for answer, _ in answers} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer, _ in answers)
    assert max(took for _, took in answers) < 10
    assert sorted(took for _, took in later)[10] < 0.5
    assert {answer.status_code for answer, _ in health} == {200}
    assert max(took for _, took in health) < 1
    assert len(health) > 10
    assert eventually(lambda: ask.post("/v1/generations", json=APPLE).status_code == 202), (
        "it recovers by itself"
    )
