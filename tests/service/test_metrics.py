"""What Prometheus reads: counted where it happens, looked up where it stands."""

import shutil
import socket

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.workers import WorkerRoll
from tests.service.scenery import APPLE


def sample(text: str, name: str, **labels: str) -> float:
    """The value of one sample; labels may be given in part."""
    found = [
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def read(client) -> str:
    return client.get("/metrics").text


def test_requests_are_counted_by_route_not_by_address(client, generation):
    client.get(f"/v1/generations/{generation['id']}")
    client.get("/v1/generations/0123456789abcdef0123456789abcdef")

    route = "/v1/generations/{generation_id}"
    text = read(client)
    assert generation["id"] not in text
    assert sample(text, "t2i_http_requests_total", route=route, code="200") == 1
    assert sample(text, "t2i_http_requests_total", route=route, code="404") == 1
    assert sample(text, "t2i_http_request_duration_seconds_count", route=route) == 2


def test_requests_that_prefer_to_wait_are_told_apart(client):
    client.post("/v1/generations", json=APPLE)
    client.post("/v1/generations", json=APPLE, headers={"Prefer": "wait=1"})
    text, name = read(client), "t2i_http_request_duration_seconds_count"

    assert sample(text, name, route="/v1/generations", waited="yes") == 1
    assert sample(text, name, route="/v1/generations", waited="no") == 1


def test_unknown_addresses_share_one_name(client):
    client.get("/nothing/here")
    client.get("/nothing/there")

    assert sample(read(client), "t2i_http_requests_total", route="none", code="404") == 2


def test_unknown_methods_share_one_name(client):
    client.request("XYZZY", "/healthz")
    client.request("M" * 8000, "/healthz")

    text = read(client)
    assert sample(text, "t2i_http_requests_total", method="other", code="405") == 2
    assert "XYZZY" not in text


def test_waiting_jobs_are_told_by_priority(client, generation):
    text = read(client)

    assert sample(text, "t2i_queue_depth", queue="generation", priority="1") == 1
    assert sample(text, "t2i_queue_depth", queue="generation", priority="0") == 0
    assert sample(text, "t2i_queue_depth", queue="erasure", priority="1") == 0


def test_ended_jobs_are_counted_once_whoever_ended_them(client, generation, worker):
    client.delete(f"/v1/generations/{generation['id']}")
    client.post("/v1/generations", json=APPLE)
    worker.draw()

    text = read(client)
    assert sample(text, "t2i_jobs_total", kind="generation", outcome="cancelled") == 1
    assert sample(text, "t2i_jobs_total", kind="generation", outcome="succeeded") == 1
    assert sample(text, "t2i_jobs_total", kind="generation", outcome="failed") == 0


def test_workers_and_served_models_are_named(client, parts):
    WorkerRoll(parts.client).beat("inference-0@here")

    text = read(client)
    assert sample(text, "t2i_worker_up", role="inference", worker="inference-0@here") == 1
    assert sample(text, "t2i_model_served", model="safe") == 1


def test_it_is_told_whether_the_model_that_default_means_is_served(client):
    assert sample(read(client), "t2i_default_model_served", model="safe") == 1
    client.post("/v1/models/safe/retirement")
    assert sample(read(client), "t2i_default_model_served", model="safe") == 0

    client.post("/v1/models/waiting/promotion", json={"default": True})
    assert sample(read(client), "t2i_default_model_served") == 1


def test_a_refused_prompt_is_counted_with_its_category(client):
    policy = {"prompts": {"words": ["napalm"]}}
    assert client.put("/v1/policies/default", json=policy).is_success
    assert client.post("/v1/generations", json=APPLE | {"prompt": "napalm"}).status_code == 422

    assert sample(read(client), "t2i_safety_blocks_total", stage="prompt") == 1


def test_without_redis_it_says_so_and_nothing_else(client, broker):
    broker.kill()
    try:
        text = read(client)
    finally:
        broker.start()

    assert sample(text, "t2i_redis_up") == 0
    assert "t2i_queue_depth{" not in text


def test_they_need_an_admins_key(client, bearer):
    assert client.get("/metrics", headers=bearer("generate")).status_code == 403
    assert client.get("/metrics", headers=bearer("admin")).status_code == 200


def test_a_port_of_their_own_needs_none(serve):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(metrics_port=port)

    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert sample(text, "t2i_redis_up") == 1


def test_memory_of_redis_and_its_bound_are_shown(client, parts):
    assert 'state="max"' not in read(client), "it has no bound here"
    try:
        parts.client.config_set("maxmemory", "1gb")
        text = read(client)
    finally:
        parts.client.config_set("maxmemory", "0")

    assert sample(text, "t2i_redis_memory_bytes", state="max") == 2**30
    assert 100_000 < sample(text, "t2i_redis_memory_bytes", state="used") < 2**30


def test_the_room_below_the_data_folder_is_shown(client, settings):
    text = read(client)
    usage = shutil.disk_usage(settings.data_dir)

    assert sample(text, "t2i_data_disk_bytes", state="size") == usage.total
    free = sample(text, "t2i_data_disk_bytes", state="free")
    assert free == pytest.approx(usage.free, rel=0.1)
