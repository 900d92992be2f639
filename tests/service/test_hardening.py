"""What operators did is written down; what leaves is hardened; who is slow is let go."""

import contextlib
import socket
import time
from http.client import HTTPConnection

import pytest

from tests.service.scenery import APPLE
from tests.service.test_refusals import assert_refused

URL = "/v1/generations"


class TestAudit:
    def test_promotions_say_who_and_why(self, client, bearer):
        admin = bearer("admin", tenant="ops")
        trace = {"X-Request-Id": "trace-1"}
        client.post(
            "/v1/models/waiting/promotion", json={"reason": "passed"}, headers=admin | trace
        )
        client.post("/v1/models/waiting/retirement", headers=admin)

        page = client.get("/v1/audit", headers=admin).json()
        retired, promoted = page["data"]
        assert promoted["action"] == "model.promotion"
        assert (promoted["subject"], promoted["reason"]) == ("waiting", "passed")
        assert (promoted["tenant"], promoted["request_id"]) == ("ops", "trace-1")
        assert promoted["actor"].startswith("key ")
        assert (retired["action"], retired["reason"]) == ("model.retirement", "")
        assert (page["broken_at"], page["has_more"]) == (None, False)

    def test_a_refused_order_is_there_too(self, client):
        client.post("/v1/models/waiting/retirement")

        refused, ordered = client.get("/v1/audit").json()["data"]
        assert (ordered["outcome"], refused["outcome"]) == ("ordered", "refused")
        assert refused["detail"] == {"refused": "StatusUnreachable"}

    def test_policies_are_there_with_their_digest(self, client):
        written = client.put("/v1/policies/acme", json={"share": 2.0}).json()
        client.delete("/v1/policies/acme")

        removed, first = client.get("/v1/audit").json()["data"]
        assert first["detail"] == {"policy": written["id"]}
        assert removed["action"] == "policy.removed"

    def test_only_admins_read_it(self, client, bearer):
        assert_refused(client.get("/v1/audit", headers=bearer("generate", "erase")), 403)

    def test_pages(self, client):
        for share in (1.0, 2.0, 3.0):
            client.put("/v1/policies/acme", json={"share": share})

        page = client.get("/v1/audit?limit=2").json()
        rest = client.get(f"/v1/audit?limit=2&after={page['last_id']}").json()
        assert page["has_more"]
        assert [entry["number"] for entry in (*page["data"], *rest["data"])] == [3, 2, 1]
        assert_refused(client.get("/v1/audit?after=99"), 404)
        assert_refused(client.get("/v1/audit?after=0"), 422)

    def test_a_reason_of_another_shape_is_refused_and_nothing_done(self, client):
        response = client.post("/v1/models/waiting/promotion", json={"why": "x"})

        assert_refused(response, 422)
        assert client.get("/v1/models/waiting").json()["status"] == "candidate"
        assert client.get("/v1/audit").json()["data"] == []

    def test_without_redis_nothing_is_promoted_unrecorded(self, client, broker):
        client.get("/v1/models")
        broker.kill()
        try:
            assert_refused(client.post("/v1/models/waiting/promotion"), 503)
            assert client.get("/v1/models/waiting").json()["status"] == "candidate"
        finally:
            broker.start()


class TestHeaders:
    @pytest.mark.parametrize("address", ["/healthz", "/v1/models", "/v1/nothing", "/docs"])
    def test_every_answer_is_hardened(self, client, address):
        headers = client.get(address).headers

        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers

    def test_refusals_at_the_door_too(self, client, bearer):
        bearer()

        assert client.get(URL).headers["X-Content-Type-Options"] == "nosniff"

    def test_what_a_route_says_about_itself_stays(self, client, worker, generation):
        worker.draw()
        headers = client.get(f"{URL}/{generation['id']}/images/0").headers

        assert "immutable" in headers["Cache-Control"]


class TestOtherSites:
    ORIGIN = "https://studio.example"

    def preflight(self, client, origin=ORIGIN):
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return client.options(URL, headers=asks)

    def test_by_default_no_page_of_another_site_may_call(self, client):
        assert not [
            name for name in self.preflight(client).headers if name.startswith("access-control")
        ]
        response = client.get(URL, headers={"Origin": self.ORIGIN})
        assert "access-control-allow-origin" not in response.headers

    def test_those_in_the_settings_may(self, serve):
        client = serve(cors_origins=f"https://other.example {self.ORIGIN}")

        assert self.preflight(client).headers["access-control-allow-origin"] == self.ORIGIN
        response = client.get(URL, headers={"Origin": self.ORIGIN})
        assert "Location" in response.headers["access-control-expose-headers"]
        assert self.preflight(client, "https://evil.example").status_code == 400


HEAD = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n".encode()


class TestSlowClients:
    @pytest.fixture
    def connect(self, start):
        address, _ = start(TRCE_RECEIVE_TIMEOUT_S="0.5")
        host, port = address.removeprefix("http://").split(":")
        with contextlib.ExitStack() as open_ones:
            yield lambda: open_ones.enter_context(
                socket.create_connection((host, int(port)), timeout=20)
            )

    def test_each_part_of_a_request_is_waited_for_only_so_long(self, connect):
        silent, half_a_head, half_a_body, second = (connect() for _ in range(4))
        half_a_head.sendall(HEAD)
        half_a_body.sendall(HEAD + b"\r\n{")
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD)

        assert silent.recv(4096) == b""
        assert half_a_head.recv(4096) == b""
        assert half_a_body.recv(4096).startswith(b"HTTP/1.1 408")
        answer = b""
        while more := second.recv(4096):
            answer += more
        assert answer.startswith(b"HTTP/1.1 200")

    def test_drops_do_not_buy_time(self, connect):
        dripping = connect()

        def drip() -> None:
            for byte in HEAD + b"X-Padding: " + b"x" * 1000:
                dripping.sendall(bytes([byte]))
                time.sleep(0.1)

        with pytest.raises(ConnectionError):
            drip()

    def test_whoever_is_quick_is_served_meanwhile(self, connect):
        slow = [connect() for _ in range(300)]
        quick = connect()
        quick.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")

        assert quick.recv(4096).startswith(b"HTTP/1.1 200")
        assert {one.recv(1) for one in slow} == {b""}


def test_an_idle_connection_stays_open_for_as_long_as_is_set(start):
    address, _ = start(TRCE_KEEP_ALIVE_S="2")
    with contextlib.closing(HTTPConnection(address.removeprefix("http://"), timeout=20)) as one:
        one.connect()
        used = one.sock
        for _ in range(2):
            one.request("GET", "/healthz")
            assert one.getresponse().read() == b'{"status":"alive"}'
            time.sleep(1)

        assert one.sock is used
        assert used.recv(1) == b""


def test_a_real_log_holds_no_prompt_and_no_key(start, settings, service_log):
    import httpx

    from core.keys import KeyStore
    from core.redis_connection import connect

    with connect(settings.redis_url) as redis:
        _, token = KeyStore(redis).create(scopes=["admin"])
    address, process = start()
    headers = {"Authorization": f"Bearer {token}", "X-Request-Id": "trace-42"}
    prompt = "zebrafinch on a windowsill"
    url = f"{address}{URL}"
    for body in (APPLE | {"prompt": prompt}, {"prompt": prompt, "n": prompt}, {"promt": prompt}):
        httpx.post(url, json=body, headers=headers)
    httpx.get(url, params={"q": prompt}, headers=headers)
    httpx.get(url, headers={"Authorization": f"Basic {token}"})
    httpx.get(f"{url}/nothing", headers={"Authorization": f"Bearer {token}x"})
    process.terminate()
    process.wait(timeout=20)

    text = service_log.read_text()
    assert text.count("trace-42") >= 4
    for secret in ("zebrafinch", token.split("_", 2)[2]):
        assert secret not in text
