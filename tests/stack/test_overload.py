"""Five times what it takes: every refusal says when to come back, nothing accepted is dropped."""

import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cli.stack.broker import broker_url
from core.keys import KeyStore
from core.redis_connection import connect
from tests.live_stack import Stack

pytestmark = pytest.mark.stack

QUEUED, OPEN, ROWS = 16, 14, 4
"""Of one tenant the bound of its own comes first; two fill queue and worker: 28 > 16 + 4."""
OFFERED = 5 * (QUEUED + ROWS)
AT_ONCE = 12
SUSTAINED_S = 10.0
TENANTS = ("acme", "globex")


class Told:
    """What clients were told, who asked at this rate: the i-th request is by `turns[i % 2]`."""

    def __init__(
        self, *turns: httpx.Client, requests: int = OFFERED, a_second: float = math.inf
    ) -> None:
        with ThreadPoolExecutor(AT_ONCE) as clients:
            asked = []
            for seed in range(requests):
                asked.append(clients.submit(_ask, turns[seed % len(turns)], seed))
                time.sleep(1 / a_second)
        self.answers = [one.result() for one in asked]

    @property
    def accepted(self) -> list[tuple[str, str]]:
        """The key and the address of each."""
        return [
            (one.request.headers["Authorization"], one.headers["Location"])
            for one in self.answers
            if one.status_code == 202
        ]

    @property
    def refused(self) -> list[httpx.Response]:
        return [one for one in self.answers if one.status_code != 202]

    def row(self, name: str) -> str:
        codes = Counter(one.status_code for one in self.answers)
        right = sum(_is_right(one) for one in self.refused)
        share = 100 * right / len(self.refused) if self.refused else 100.0
        return (
            f"| {name} | {len(self.answers)} | {codes[202]} | {codes[429]} | {codes[503]} "
            f"| {share:.0f} % |\n"
        )


def _ask(client: httpx.Client, seed: int) -> httpx.Response:
    body = {"model": "emoji", "prompt": "a cat", "seed": seed, "num_inference_steps": 20}
    return client.post("/v1/generations", json=body)


def _is_right(refusal: httpx.Response) -> bool:
    in_time = refusal.headers.get("Retry-After", "0")
    return refusal.status_code in {429, 503} and int(in_time) > 0


@pytest.fixture
def small_stack() -> Iterator[Stack]:
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        running = Stack(
            Path(folder) / "data",
            *("--inference-workers", "1"),
            TRCE_TRAINER_WORKERS="0",
            TRCE_BATCH_ROWS=str(ROWS),
            TRCE_MAX_QUEUED_GENERATIONS=str(QUEUED),
            TRCE_MAX_OPEN_JOBS_PER_TENANT=str(OPEN),
        )
        running.start()
        yield running
        running.interrupt()
        running.http.close()


@pytest.fixture
def tenants(small_stack) -> Iterator[list[httpx.Client]]:
    with connect(broker_url(small_stack.data_dir / "broker")) as redis:
        keys = [KeyStore(redis).create(scopes=["generate"], tenant=name)[1] for name in TENANTS]
    clients = [
        httpx.Client(
            base_url=small_stack.url, timeout=30, headers={"Authorization": f"Bearer {key}"}
        )
        for key in keys
    ]
    yield clients
    for client in clients:
        client.close()


def test_every_refusal_is_a_429_or_503_with_a_time_to_come_back(small_stack, tenants):
    began = time.monotonic()
    alone = Told(tenants[0])
    drawn = _wait_for(small_stack, alone.accepted)
    rate = 5 * drawn / (time.monotonic() - began)

    together = Told(*tenants)
    sustained = Told(*tenants, requests=round(rate * SUSTAINED_S), a_second=rate)
    _wait_for(small_stack, together.accepted + sustained.accepted)

    sys.stdout.write(
        "| offered | requests | accepted | 429 | 503 | refusals with a time to come back |\n"
        "|---|---|---|---|---|---|\n"
        + alone.row("by one tenant at once")
        + together.row("by two tenants at once")
        + sustained.row(f"by two, {rate:.0f} a second for {SUSTAINED_S:.0f} s")
    )
    assert len(alone.accepted) == OPEN
    assert len(together.accepted) >= QUEUED
    assert sustained.accepted
    for told in (alone, together, sustained):
        assert told.refused
        assert all(map(_is_right, told.refused))
    assert {one.status_code for one in alone.refused} == {429}
    assert 503 in {one.status_code for one in together.refused}
    assert 503 in {one.status_code for one in sustained.refused}


def _wait_for(stack: Stack, accepted: list[tuple[str, str]]) -> int:
    """Until all have ended, each as it was promised; returns how many there are."""
    for key, path in accepted:
        stack.http.headers["Authorization"] = key
        assert stack.ended(path)["state"] == "succeeded"
    return len(accepted)
