"""Lines that cannot be written are lost; requests are not."""

from pathlib import Path

import httpx
import pytest

from tests.service.scenery import APPLE


@pytest.fixture
def service_log() -> Path:
    return Path("/dev/full")


def test_requests_are_answered_while_the_log_is_full(start):
    address, _ = start()
    url = f"{address}/v1/generations"

    accepted = httpx.post(url, json=APPLE)
    assert accepted.status_code == 202
    assert httpx.get(f"{address}{accepted.headers['location']}").status_code == 200
    refused = httpx.post(url, json=APPLE | {"model": "none"})
    assert refused.status_code == 404
    assert refused.headers["content-type"] == "application/problem+json"


def test_with_the_store_away_as_well_clients_are_told_to_come_back(start, broker):
    address, _ = start()
    broker.kill()
    try:
        response = httpx.post(f"{address}/v1/generations", json=APPLE)
    finally:
        broker.start()

    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
