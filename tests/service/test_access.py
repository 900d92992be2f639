import re

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from tests.service.scenery import APPLE

SECRET = "my secret apple"


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def test_a_sane_request_id_of_the_client_is_kept(client):
    response = client.get("/healthz", headers={"X-Request-Id": "trace-7.b_C"})

    assert response.headers["X-Request-Id"] == "trace-7.b_C"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 65, "{json}", "é"])
def test_any_other_request_id_is_replaced(client, offered):
    response = client.get("/healthz", headers={"X-Request-Id": offered.encode()})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


def test_each_request_is_one_line_without_query_or_prompt(client, log):
    client.post("/v1/generations?" + "q=" + SECRET, json={"prompt": SECRET})
    client.post("/v1/generations", json={"prompt": SECRET, "steps": SECRET})

    lines = [line for line in log if line["event"] == "request"]
    assert [line["status"] for line in lines] == [202, 422]
    assert {line["path"] for line in lines} == {"/v1/generations"}
    assert "secret" not in str(log)


def test_an_unexpected_error_is_told_to_the_log_and_kept_from_the_client(client, parts, log):
    def breaks(spec, *_, **__):
        raise RuntimeError(f"cannot draw {spec.prompt}") from ValueError(spec.prompt)

    parts.desk.admit_generation = breaks

    response = client.post("/v1/generations", json={"prompt": SECRET})

    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["X-Request-Id"]
    for text in (SECRET, "Traceback", "RuntimeError", ".py"):
        assert text not in response.text
    (line,) = [line for line in log if line["event"] == "unexpected error"]
    assert line["error"] == ["builtins.RuntimeError", "builtins.ValueError"]
    assert any("test_access.py" in frame for frame in line["frames"])
    assert "secret" not in str(log)


def test_a_named_error_without_a_status_is_our_fault(client, parts, log):
    from core.errors import SingularEdit

    def breaks(*_, **__):
        raise SingularEdit("not a matter of HTTP")

    parts.desk.admit_generation = breaks

    assert client.post("/v1/generations", json=APPLE).status_code == 500


def test_the_service_starts_and_stops_twice_over_one_installation(serve):
    assert serve().get("/healthz").status_code == 200
    assert isinstance(second := serve(), TestClient)
    assert second.get("/healthz").status_code == 200
