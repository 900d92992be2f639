import time

import pytest

from core.refusals import TRY_AGAIN_S, Refusals
from core.workers import WorkerRoll


@pytest.fixture
def roll(parts):
    return WorkerRoll(parts.client)


def test_it_is_alive_whatever_is_missing(client):
    assert client.get("/healthz").json() == {"status": "alive"}


def test_it_is_ready_with_a_worker_and_a_model(client, roll):
    roll.beat("inference-0@here")

    assert client.get("/readyz").json() == {
        "status": "ready",
        "refused_models": ["forged"],
        "warnings": [],
    }


def test_without_a_worker_it_is_not(client, roll):
    roll.beat("trainer-0@here")

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["missing"] == ["no inference worker has beaten within 15 s"]


def test_a_worker_that_stopped_beating_does_not_count(client, parts):
    WorkerRoll(parts.client, now=lambda: 1_000_000.0).beat("inference-0@here")

    assert client.get("/readyz").status_code == 503


def test_without_a_served_model_it_is_not(client, roll):
    roll.beat("inference-0@here")
    client.post("/v1/models/safe/retirement")

    assert client.get("/readyz").json()["missing"] == ["no model is served; import or promote one"]


def test_without_a_model_that_some_worker_does_not_refuse_it_is_not(client, parts, roll):
    roll.beat("inference-0@here")
    roll.beat("inference-1@here")
    refusals = Refusals(parts.client)
    refusals.note("safe", "erasure differs", worker="inference-0@here")
    assert client.get("/readyz").status_code == 200

    refusals.note("safe", "erasure differs", worker="inference-1@here")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["missing"] == [
        "every worker refuses every model that is served; see GET /v1/models"
    ]

    refusals.end("safe", worker="inference-1@here")
    assert client.get("/readyz").status_code == 200


def test_after_a_while_a_model_that_was_refused_is_to_be_asked_for_again(client, parts, roll):
    """Else a balancer that asks here would keep away the request that finds it mended."""
    roll.beat("inference-0@here")
    long_ago = time.time() - TRY_AGAIN_S - 1
    Refusals(parts.client, now=lambda: long_ago).note("safe", "no", worker="inference-0@here")

    assert client.get("/readyz").status_code == 200


def test_the_roll_names_those_of_a_role_who_beat_lately(parts):
    now = 1000.0
    roll = WorkerRoll(parts.client, now=lambda: now)
    roll.beat("inference-1@here")
    now = 1010.0
    roll.beat("inference-0@here")
    roll.beat("trainer-0@here")

    assert roll.present("inference", 20) == ["inference-0@here", "inference-1@here"]
    assert roll.present("inference", 5) == ["inference-0@here"]
    assert roll.present("trainer", 5) == ["trainer-0@here"]


def test_the_roll_forgets_who_has_been_gone_for_days(parts):
    WorkerRoll(parts.client, now=lambda: 0.0).beat("inference-0@old")
    WorkerRoll(parts.client).beat("inference-0@here")

    assert parts.client.zrange("workers", 0, -1) == ["inference-0@here"]
