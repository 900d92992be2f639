"""What operators are told of models that fail their checks; the others are served."""

import time

import pytest

from core.errors import StoreUnavailable
from core.refusals import Refusals
from core.workers import WorkerRoll
from tests.service.scenery import APPLE, eventually


@pytest.fixture
def ready(parts):
    WorkerRoll(parts.client).beat("inference-0@here")


@pytest.fixture
def seen_by_a_worker(parts):
    """A file of a served model was changed: only who loads it notices."""
    Refusals(parts.client).note("safe", "model safe: erasure differs", worker="inference-0@there")


def test_readiness_names_them_and_stays_ready(client, ready):
    response = client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["refused_models"] == ["forged"]


def test_what_a_worker_refused_is_named_with_the_reason(client, ready, seen_by_a_worker):
    assert client.get("/readyz").json()["refused_models"] == ["forged", "safe"]
    untrusted = client.get("/v1/models").json()["untrusted"]
    assert untrusted["safe"] == "model safe: erasure differs (seen by inference-0@there)"
    assert "t2i_model_refused" in client.get("/metrics").text
    assert 't2i_model_refused{model="safe"} 1.0' in client.get("/metrics").text


def test_requests_for_good_models_are_accepted_meanwhile(client, ready):
    assert client.post("/v1/generations", json=APPLE).status_code == 202


def test_once_it_is_served_it_is_named_no_longer(client, parts, ready, seen_by_a_worker):
    Refusals(parts.client).end("safe", worker="inference-0@there")

    assert client.get("/readyz").json()["refused_models"] == ["forged"]


def test_a_refusal_is_written_to_the_audit_trail_once(parts, seen_by_a_worker):
    for _ in range(3):
        parts.refused.write_down()

    entries = parts.audit.page(limit=10)
    assert sorted((one.action, one.subject, one.outcome) for one in entries) == [
        ("model.refused", "forged", "noticed"),
        ("model.refused", "safe", "noticed"),
    ]
    assert parts.audit.broken(entries) is None


def test_a_refusal_that_could_not_be_written_is_written_by_whoever_looks_next(parts, monkeypatch):
    monkeypatch.setattr("service.refused_models.WRITING_S", 1)
    with monkeypatch.context() as failing:
        failing.setattr(parts.audit, "note", out_of_memory)
        with pytest.raises(StoreUnavailable):
            parts.refused.write_down()
    assert parts.audit.page(limit=10) == []

    def written() -> bool:
        parts.refused.write_down()
        return bool(parts.audit.page(limit=10))

    assert eventually(written)
    time.sleep(1.1)
    parts.refused.write_down()
    assert [one.subject for one in parts.audit.page(limit=10)] == ["forged"]


def out_of_memory(*_, **__):
    raise StoreUnavailable("the job store takes no writes now; try again later")


def test_the_service_writes_it_down_by_itself(serve, monkeypatch):
    monkeypatch.setattr("service.refused_models.LOOK_EVERY_S", 0.05)
    trail = serve().app.state.parts.audit

    assert eventually(lambda: trail.page(limit=1))


def test_a_model_that_is_not_served_is_not_told_of_for_ever(client, parts, ready):
    """Say it was retired since the worker refused it."""
    Refusals(parts.client).note("old", "model old: erasure differs", worker="inference-0@there")

    assert client.get("/readyz").json()["refused_models"] == ["forged"]


def test_without_redis_the_manifests_are_judged_all_the_same(client, parts, broker):
    assert parts.registry.get("safe")
    broker.kill()
    try:
        assert list(parts.refused.all()) == ["forged"]
    finally:
        broker.start()


def test_before_redis_has_answered_once_none_is_called_refused(client, parts, broker):
    broker.kill()
    try:
        assert parts.refused.all() == {}
    finally:
        broker.start()

    assert list(parts.refused.all()) == ["forged"]
