"""Redis goes away and comes back: 503 meanwhile, nothing lost, nothing half done."""

import threading
import time

import pytest

from tests.crowding import crowding
from tests.service.scenery import APPLE, WEAPONS, eventually

JOB = "0" * 32


@pytest.fixture
def outage(broker, client):
    """While a test has this, nobody answers; the service has looked at Redis before."""
    assert client.get("/v1/models").status_code == 200
    broker.kill()
    yield
    broker.start()


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        pytest.param("POST", "/v1/generations", APPLE, id="asking"),
        pytest.param("POST", "/v1/erasures", WEAPONS, id="erasing"),
        pytest.param("GET", "/v1/generations", None, id="listing"),
        pytest.param("GET", f"/v1/generations/{JOB}", None, id="reading"),
        pytest.param("DELETE", f"/v1/erasures/{JOB}", None, id="cancelling"),
    ],
)
def test_without_redis_it_says_when_to_come_back(outage, client, method, address, body):
    began = time.monotonic()

    response = client.request(method, address, json=body)

    assert response.status_code == 503
    assert response.json()["type"] == "urn:problem:store-unavailable"
    assert int(response.headers["Retry-After"]) > 0
    assert time.monotonic() - began < 5 * crowding()


def test_what_needs_no_redis_goes_on(outage, client):
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/presets").status_code == 200


def test_a_refusal_stays_a_refusal(outage, client):
    assert client.post("/v1/generations", json=APPLE | {"model": "none"}).status_code == 404


def test_afterwards_everything_is_as_it_was(broker, client, worker, generation):
    broker.kill()
    try:
        assert client.post("/v1/generations", json={"prompt": "lost"}).status_code == 503
    finally:
        broker.start()

    listed = eventually(lambda: client.get("/v1/generations").json().get("data"))

    assert [one["id"] for one in listed] == [generation["id"]]
    assert client.post("/v1/generations", json=APPLE).status_code == 202
    assert worker.draw().job_id == generation["id"]


def test_a_client_that_waits_through_an_outage_learns_its_job(broker, client, jobs):
    def kill() -> None:
        while not jobs.counts.queued("generation"):
            time.sleep(0.01)
        # By then it has been answered for, and its client waits.
        time.sleep(0.5 * crowding())
        broker.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        response = client.post("/v1/generations", json=APPLE, headers={"Prefer": "wait=30"})
    finally:
        killing.join()
        broker.start()

    assert response.status_code == 202
    assert client.get(response.headers["Location"]).json()["state"] == "queued"


def test_the_service_starts_while_redis_is_away(broker, serve):
    broker.kill()
    try:
        client = serve()
        assert client.get("/readyz").json()["missing"] == ["Redis does not answer"]
        assert client.get("/queue").status_code == 503
        assert client.get("/healthz").status_code == 200
    finally:
        broker.start()

    assert client.post("/v1/generations", json=APPLE).status_code == 202


@pytest.mark.parametrize("address", ["/v1/models", "/v1/models/safe"])
def test_of_models_it_says_nothing_before_redis_has_told_which_manifests_are_the_newest(
    broker, client, address
):
    """And does so at once, when it has: an old manifest may be that of a model retired since."""
    assert client.get("/v1/presets").status_code == 200  # nobody needs a key, as is known by now
    broker.kill()
    try:
        assert client.get(address).status_code == 503
    finally:
        broker.start()

    assert client.get(address).status_code == 200


def test_nor_do_its_metrics_call_a_model_served_or_refused(broker, serve):
    broker.kill()
    try:
        client = serve()
        parts = client.app.state.parts
        text = parts.metrics.text().decode()
        assert parts.readiness.warnings() == []
        parts.refused.write_down()
    finally:
        broker.start()

    assert "t2i_redis_up 0.0" in text
    for told in ("t2i_model_served{", "t2i_default_model_served{", "t2i_model_refused{"):
        assert told not in text
        assert told in parts.metrics.text().decode()


def test_a_full_memory_refuses_new_work_and_goes_on_with_the_old(
    client, parts, worker, generation
):
    parts.client.config_set("maxmemory", 1)
    try:
        refused = client.post("/v1/generations", json=APPLE)
        worker.draw()
        drawn = client.get(f"/v1/generations/{generation['id']}").json()
    finally:
        parts.client.config_set("maxmemory", 0)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "nearly full" in refused.json()["detail"]
    assert drawn["state"] == "succeeded"
    assert client.post("/v1/generations", json=APPLE).status_code == 202
