"""Workers as real processes, before a store of pictures that refuses them or is away."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from core.settings import Settings
from tests.started_worker import refused_start
from worker.pictures import look_at_pictures


class Store(BaseHTTPRequestHandler):
    """Answers whatever is put with the status of its server."""

    def do_PUT(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def store() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def bucket(store: HTTPServer) -> dict[str, str]:
    return {
        "s3_bucket": "pictures",
        "s3_endpoint_url": f"http://127.0.0.1:{store.server_port}",
        "s3_access_key_id": "id",
        "s3_secret_access_key": "rotated",
    }


@pytest.mark.parametrize("status", [403, 404], ids=["the secret is wrong", "no bucket"])
def test_a_store_that_refuses_is_a_problem_by_name(store, status):
    store.status = status

    (check,) = look_at_pictures(Settings(_env_file=None, **bucket(store)))

    assert check.state == "problem"
    assert "the bucket pictures" in check.found
    assert str(status) in check.found


@pytest.mark.parametrize("status", [500, 503])
def test_one_that_is_away_is_waited_out(store, status, monkeypatch):
    monkeypatch.setattr("core.object_storage.TRIES", 1)
    store.status = status

    assert look_at_pictures(Settings(_env_file=None, **bucket(store))) == []


def test_a_worker_that_is_refused_does_not_start(store, tmp_path, redis_url):
    store.status = 403
    environ = {f"TRCE_{name.upper()}": value for name, value in bucket(store).items()}
    environ |= {"REDIS_URL": redis_url, "TRCE_DATA_DIR": str(tmp_path)}
    told = refused_start("inference", environ)

    assert "cannot start: picture store: the bucket pictures refuses" in told
    assert "TRCE_S3_" in told
