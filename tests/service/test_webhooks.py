"""A client's own server is told of a job's end: signed, again and again, and nobody else is."""

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import httpx
import openai
import pytest

from core.errors import AddressForbidden
from core.redis_connection import connect
from service.webhooks.addresses import Network, is_public
from service.webhooks.outbox import OUTBOX, PAUSES_S
from tests.service.scenery import APPLE, WEAPONS, Worker, eventually

URL = "/v1/generations"


class Receiver:
    """A client's server; answers with the statuses it is given, then with 200."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.meanwhile: Callable[[str], object] = lambda path: None
        """What happens before it answers."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), body))
                receiver.meanwhile(self.path)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def client(serve):
    return serve(webhooks_to_private_addresses=True)


@pytest.fixture
def redis(settings):
    with connect(settings.redis_url) as client:
        yield client


@pytest.fixture
def due_now(redis):
    """The pause before the next try is over."""

    def make(job_id: str) -> None:
        eventually(lambda: redis.zscore(OUTBOX, job_id) > time.time() * 1000)
        redis.zadd(OUTBOX, {job_id: 0})
        for key in redis.keys("webhook_rests:*"):
            redis.delete(key)

    return make


def verify(client, headers, body, secret) -> None:
    with openai.OpenAI(api_key="any", webhook_secret=secret) as theirs:
        theirs.webhooks.verify_signature(body, headers)


class TestDelivery:
    def test_the_end_of_a_job_is_told_and_its_signature_is_theirs(self, client, worker, receiver):
        made = client.post(URL, json=APPLE | {"webhook": receiver.url}).json()
        assert made["told"] == {
            "webhook": receiver.url,
            "delivered": False,
            "tries": 0,
            "problem": None,
        }
        worker.draw()

        ((path, headers, body),) = eventually(lambda: receiver.got)

        assert path == "/hook"
        assert headers["webhook-id"].startswith(f"msg_{made['id']}_")
        message = json.loads(body)
        assert message["type"] == "generation.succeeded"
        assert message["data"]["images"][0]["url"] == f"{URL}/{made['id']}/images/0"
        secret = client.get("/v1/webhooks/secret").json()["secret"]
        verify(client, headers, body, secret)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            verify(client, headers, body + b" ", secret)
        eventually(lambda: client.get(f"{URL}/{made['id']}").json()["told"]["delivered"])

    @pytest.mark.parametrize(
        ("kind", "address", "body"),
        [
            ("generation", URL, APPLE),
            ("erasure", "/v1/erasures", WEAPONS),
        ],
    )
    def test_every_end_is_told_of_every_kind(self, client, worker, receiver, kind, address, body):
        failed = client.post(address, json=body | {"webhook": receiver.url})
        worker.jobs.leasing.fail(worker.claim(kind), "no")
        cancelled = client.post(address, json=body | {"webhook": receiver.url})
        client.delete(cancelled.headers["Location"])
        late = client.post(address, json=body | {"webhook": receiver.url, "deadline_s": 1})

        told = eventually(lambda: len(receiver.got) == 3 and receiver.got)

        assert {failed.status_code, cancelled.status_code, late.status_code} == {202}
        types = sorted(json.loads(body)["type"] for _, _, body in told)
        assert types == [f"{kind}.cancelled", f"{kind}.failed", f"{kind}.failed"]

    def test_what_is_not_taken_is_sent_again_under_the_same_id(
        self, client, worker, receiver, due_now
    ):
        receiver.statuses = [500, 302, 200]
        made = client.post(URL, json=APPLE | {"webhook": receiver.url}).json()
        worker.draw()
        told = lambda: client.get(f"{URL}/{made['id']}").json()["told"]  # noqa: E731

        eventually(lambda: told()["tries"] == 1)
        assert told()["problem"] == "the receiver answered with status 500"
        due_now(made["id"])
        eventually(lambda: told()["tries"] == 2)
        due_now(made["id"])
        eventually(lambda: told()["delivered"])

        assert told()["problem"] is None
        assert [path for path, _, _ in receiver.got] == ["/hook"] * 3  # no redirect is followed
        assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1

    def test_another_process_goes_on_with_what_one_left(self, start, settings, receiver, worker):
        private = {"TRCE_WEBHOOKS_TO_PRIVATE_ADDRESSES": "true"}
        address, process = start(**private)
        made = httpx.post(f"{address}{URL}", json=APPLE | {"webhook": receiver.url}).json()
        process.kill()
        process.wait()
        worker.draw()

        start(**private)

        eventually(lambda: receiver.got)
        assert made["id"] in receiver.got[0][1]["webhook-id"]

    def test_the_end_of_a_second_life_is_another_message(self, client, worker, receiver):
        made = client.post(URL, json=APPLE | {"webhook": receiver.url}).json()
        worker.jobs.leasing.fail(worker.claim(), "no")
        eventually(lambda: client.get(f"{URL}/{made['id']}").json()["told"]["delivered"])
        assert client.post(f"{URL}/{made['id']}/retry").status_code == 202
        worker.draw()

        eventually(lambda: len(receiver.got) == 2)

        assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 2

    def test_an_end_that_comes_while_another_is_told_is_told_too(self, client, worker, receiver):
        made = client.post(URL, json=APPLE | {"webhook": receiver.url}).json()

        def end_again(_: str) -> None:
            receiver.meanwhile = lambda path: None
            assert client.post(f"{URL}/{made['id']}/retry").status_code == 202
            worker.draw()

        receiver.meanwhile = end_again
        worker.jobs.leasing.fail(worker.claim(), "no")

        (_, _, first), (_, _, second) = eventually(
            lambda: receiver.got if len(receiver.got) == 2 else None
        )
        kinds = [json.loads(body)["type"] for body in (first, second)]
        assert kinds == ["generation.failed", "generation.succeeded"]
        told = eventually(
            lambda: (
                now if (now := client.get(f"{URL}/{made['id']}").json()["told"])["tries"] else None
            )
        )
        assert (told["delivered"], told["tries"]) == (True, 1)

    def test_a_tenant_whose_receivers_are_slow_leaves_threads_to_others(
        self, client, worker, receiver, bearer
    ):
        answered = threading.Event()
        receiver.meanwhile = lambda path: path == "/hook" or answered.wait(8)
        slow, quick = bearer(tenant="slow"), bearer(tenant="quick")
        port = receiver.url.split(":")[-1].split("/")[0]
        try:
            for number in range(8):
                # Each has another name, so that none rests for another's sake.
                body = APPLE | {"webhook": f"http://127.0.0.{number + 1}:{port}/slow"}
                client.post(URL, json=body, headers=slow)
                worker.draw()
            eventually(lambda: receiver.got)
            client.post(URL, json=APPLE | {"webhook": receiver.url}, headers=quick)
            worker.draw()

            eventually(lambda: "/hook" in [path for path, _, _ in receiver.got])
            assert len([path for path, _, _ in receiver.got if path == "/slow"]) <= 2
        finally:
            answered.set()

    def test_after_the_last_try_it_is_left(self, client, worker, receiver, due_now, redis):
        receiver.statuses = [500] * 20
        made = client.post(URL, json=APPLE | {"webhook": receiver.url}).json()
        worker.draw()

        for tries in range(1, len(PAUSES_S) + 2):
            eventually(
                lambda tries=tries: (
                    client.get(f"{URL}/{made['id']}").json()["told"]["tries"] == tries
                )
            )
            if tries <= len(PAUSES_S):
                due_now(made["id"])

        eventually(lambda: redis.zcard(OUTBOX) == 0)
        assert len(receiver.got) == len(PAUSES_S) + 1

    def test_a_receiver_that_fails_holds_up_nobody_else(self, client, worker, receiver):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        for _ in range(20):
            client.post(URL, json=APPLE | {"webhook": dead})
            worker.draw()
        client.post(URL, json=APPLE | {"webhook": receiver.url})
        worker.draw()

        eventually(lambda: receiver.got)

    def test_a_job_that_has_expired_is_told_no_more(self, client, worker, redis, receiver):
        redis.zadd(OUTBOX, {"0" * 32: 0})

        eventually(lambda: redis.zcard(OUTBOX) == 0)
        assert receiver.got == []


class TestSecrets:
    def test_after_a_rotation_both_secrets_know_a_delivery(self, client, worker, receiver):
        old = client.get("/v1/webhooks/secret").json()["secret"]
        new = client.post("/v1/webhooks/secret/rotation").json()["secret"]
        assert old != new
        assert client.get("/v1/webhooks/secret").json()["secret"] == new
        client.post(URL, json=APPLE | {"webhook": receiver.url})
        worker.draw()

        ((_, headers, body),) = eventually(lambda: receiver.got)

        verify(client, headers, body, old)
        verify(client, headers, body, new)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            verify(client, headers, body, "whsec_" + "QUJD" * 8)

    def test_each_tenant_has_its_own(self, client, bearer):
        mine, theirs = (
            client.get("/v1/webhooks/secret", headers=bearer("generate", tenant=tenant)).json()
            for tenant in ("acme", "other")
        )

        assert mine["secret"] != theirs["secret"]


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            pytest.param("http://a.example/hook", id="no TLS"),
            pytest.param("https://127.0.0.1/", id="loopback"),
            pytest.param("https://[::1]/", id="loopback v6"),
            pytest.param("https://[::ffff:10.0.0.1]/", id="private, mapped"),
            pytest.param("https://169.254.169.254/latest", id="link-local"),
            pytest.param("https://10.1.2.3/", id="private"),
            pytest.param("https://localhost/", id="local name"),
            pytest.param("https://redis.internal/", id="internal name"),
            pytest.param("https://me:secret@a.example/", id="user name"),
            pytest.param("https://a.example/#part", id="fragment"),
            pytest.param("https://a.example:99999/", id="port"),
            pytest.param("https://[/", id="brackets"),
            pytest.param("https:///path", id="no host"),
            pytest.param("ftp://a.example/", id="another scheme"),
            pytest.param("https://a.example/\nx: y", id="line end"),
            pytest.param("https://a.example/" + "x" * 2000, id="long"),
            pytest.param(7, id="no text"),
        ],
    )
    def test_what_is_no_receiver_on_the_internet_is_refused(self, serve, url):
        client = serve()
        response = client.post(URL, json=APPLE | {"webhook": url})

        assert response.status_code == 422
        assert "webhook" in response.json()["detail"]
        assert client.get(URL).json()["data"] == []

    @pytest.mark.parametrize(
        ("number", "public"),
        [
            ("93.184.216.34", True),
            ("2606:2800:220:1::1", True),
            ("0.0.0.0", False),
            ("100.64.0.1", False),
            ("192.168.0.1", False),
            ("224.0.0.1", False),
            ("fe80::1", False),
            ("fc00::1", False),
            ("64:ff9b::7f00:1", False),
            ("64:ff9b::5db8:d822", True),
            ("2002:7f00:1::", False),
            ("::ffff:127.0.0.1", False),
        ],
    )
    def test_public_is_what_is_so_in_every_guise(self, number, public):
        assert is_public(ipaddress.ip_address(number)) is public

    def test_a_name_is_judged_by_the_address_that_is_connected_to(self, receiver, monkeypatch):
        """As when a name leads to the internet at first, and to us at the second look."""
        looked = []

        def rebound(host, port, **_):
            looked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        network = Network(private_too=False, within_s=5)

        with pytest.raises(AddressForbidden):
            network.connect_tcp("a.example", int(receiver.url.split(":")[2].split("/")[0]))

        assert looked == ["a.example"]
        assert receiver.got == []

    def test_nothing_is_delivered_to_a_name_that_leads_to_us(
        self, serve, installation, receiver, monkeypatch
    ):
        client = serve()
        monkeypatch.setattr(
            "service.webhooks.addresses.socket.getaddrinfo",
            lambda host, port, **_: [(2, 1, 6, "", ("127.0.0.1", port))],
        )
        port = receiver.url.split(":")[2].split("/")[0]
        made = client.post(URL, json=APPLE | {"webhook": f"https://a.example:{port}/"}).json()
        Worker(client.app.state.parts).draw()

        told = eventually(
            lambda: (t := client.get(f"{URL}/{made['id']}").json()["told"])["tries"] and t
        )

        assert "no public address" in told["problem"]
        assert receiver.got == []

    def test_a_receiver_that_answers_by_drops_is_let_go(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            stop = threading.Event()

            def drip() -> None:
                connection, _ = server.accept()
                with connection:
                    for byte in b"HTTP/1.1 200 OK" * 100:
                        if stop.wait(0.05):
                            return
                        connection.send(bytes([byte]))

            thread = threading.Thread(target=drip)
            thread.start()
            began = time.monotonic()
            network = Network(private_too=True, within_s=0.5)
            port = server.getsockname()[1]
            with (
                httpcore.ConnectionPool(network_backend=network) as pool,
                pytest.raises(httpcore.TimeoutException),
            ):
                pool.request("POST", f"http://127.0.0.1:{port}/", content=b"{}")
            stop.set()
            thread.join()

        assert time.monotonic() - began < 3
