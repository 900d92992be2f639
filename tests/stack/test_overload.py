"""Five times what it takes: every refusal says when to come back, nothing accepted is dropped."""

import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.live_stack import Stack

pytestmark = pytest.mark.stack

QUEUED, OPEN = 16, 20
OFFERED = 5 * OPEN
AT_ONCE = 12


@pytest.fixture
def small_stack():
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        running = Stack(
            Path(folder) / "data",
            *("--inference-workers", "1"),
            TRCE_TRAINER_WORKERS="0",
            TRCE_MAX_QUEUED_GENERATIONS=str(QUEUED),
            TRCE_MAX_OPEN_JOBS_PER_TENANT=str(OPEN),
        )
        running.start()
        yield running
        running.interrupt()
        running.http.close()


def test_every_refusal_is_a_429_or_503_with_a_time_to_come_back(small_stack):
    def ask(seed: int) -> httpx.Response:
        body = {"model": "emoji", "prompt": "a cat", "seed": seed, "num_inference_steps": 20}
        return small_stack.http.post("/v1/generations", json=body)

    with ThreadPoolExecutor(AT_ONCE) as clients:
        answers = list(clients.map(ask, range(OFFERED)))

    accepted = [one.headers["Location"] for one in answers if one.status_code == 202]
    refused = [one for one in answers if one.status_code != 202]
    told = Counter(one.status_code for one in refused)
    sys.stdout.write(f"{OFFERED} asked for, {len(accepted)} accepted, refused: {dict(told)}\n")
    assert len(accepted) >= QUEUED
    assert refused
    assert set(told) <= {429, 503}
    assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
    ended = [small_stack.ended(path)["state"] for path in accepted]
    assert ended == ["succeeded"] * len(accepted)
