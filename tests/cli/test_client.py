"""The client over real sockets: whom it waits for, how long, and what it sends again."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cli import client as module
from cli.client import Client, ServiceRefused, ServiceUnreachable
from cli.stack.ports import free_port
from core.errors import Misconfigured

Answer = tuple[int, dict[str, str]]


@contextmanager
def service(answers: list[Answer], port: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the idempotency keys it was sent; the last answer is given again."""
    keys: list[str] = []

    class Scripted(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = answers[min(len(keys), len(answers) - 1)]
            keys.append(self.headers["Idempotency-Key"])
            body = json.dumps({"id": "1", "detail": "busy"}).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", port), Scripted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", keys
        server.shutdown()


@contextmanager
def another_server(status: int, said: str) -> Iterator[str]:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says_even_at_the_first_request(status):
    with (
        service([(status, {"Retry-After": "1"}), (202, {})]) as (url, keys),
        Client(url) as client,
    ):
        assert seconds(lambda: client.post("/v1/generations", {})) >= 1

    assert len(keys) == 2
    assert len(set(keys)) == 1, "a repetition is the same order"


def test_one_that_asks_for_more_than_a_client_waits_is_believed_at_once():
    with (
        service([(429, {"Retry-After": "3600"})]) as (url, keys),
        Client(url) as client,
        pytest.raises(ServiceRefused, match="429: busy"),
    ):
        client.post("/v1/generations", {})

    assert len(keys) == 1


def test_one_that_stays_busy_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 1.2)
    with (
        service([(503, {})]) as (url, keys),
        Client(url) as client,
        pytest.raises(ServiceRefused, match="503"),
    ):
        client.post("/v1/generations", {})

    assert len(keys) > 1


def test_one_that_is_being_started_is_waited_for():
    port = free_port("127.0.0.1")
    accepted = []
    with Client(f"http://127.0.0.1:{port}") as client:
        order = threading.Thread(target=lambda: accepted.append(client.post("/v1/erasures", {})))
        order.start()
        time.sleep(0.7)
        with service([(202, {})], port):
            order.join(timeout=20)

    assert accepted == [{"id": "1", "detail": "busy"}]


def test_where_nothing_answers_it_says_so_after_a_while(monkeypatch):
    monkeypatch.setattr(module, "STRANGERS_PATIENCE_S", 0.6)
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    with Client(url) as client, pytest.raises(ServiceUnreachable, match="trce up"):
        client.post("/v1/generations", {})


@pytest.mark.parametrize("said", ["<!doctype html><p>Welcome", "[1, 2]", ""])
def test_another_server_is_told_from_the_service(said):
    with (
        another_server(200, said) as url,
        Client(url) as client,
        pytest.raises(ServiceUnreachable, match=f"what answers at {url} is no TRCE service"),
    ):
        client.get("/v1/models")


@pytest.mark.parametrize("said", ["<p>nothing here", '["nothing here"]'])
def test_a_refusal_of_another_server_is_shown_as_it_is(said):
    with (
        another_server(404, said) as url,
        Client(url) as client,
        pytest.raises(ServiceRefused, match=r"404: .*nothing here"),
    ):
        client.get("/v1/models")


@pytest.mark.parametrize("key", ["trce_ключ", "trce_a\u00a0b", "trce_a b", "trce_a\n"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("TRCE_API_KEY", key)

    with pytest.raises(Misconfigured, match="TRCE_API_KEY holds a character") as told:
        Client("http://127.0.0.1:1")
    assert key not in str(told.value)
