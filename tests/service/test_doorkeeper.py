"""Who is let in, what for, and whose jobs they see."""

import base64
import contextlib

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from starlette.datastructures import Headers

from core.errors import ApiKeyRefused
from service.credentials import api_key
from service.door import OPEN_TO_ALL
from tests.service.scenery import APPLE, WEAPONS
from tests.service.test_refusals import assert_refused

URL = "/v1/generations"


def basic(text: str | bytes) -> dict[str, str]:
    data = text if isinstance(text, bytes) else text.encode()
    return {"Authorization": "Basic " + base64.b64encode(data).decode()}


class TestWithoutKeys:
    def test_this_machine_is_served_whatever_key_it_sends(self, client):
        assert client.get(URL).status_code == 200
        assert client.get(URL, headers={"Authorization": "Bearer sk-anything"}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "192.168.1.2:8000", "", "localhost.evil.example"]
    )
    def test_a_name_of_another_machine_is_not(self, client, host):
        assert_refused(client.get(URL, headers={"Host": host}), 401)

    @pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost:8000", "[::1]:8000", "127.9.9.9"])
    def test_every_name_of_this_machine_is(self, client, host):
        assert client.get(URL, headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
    def test_a_proxy_brings_nobody_in(self, client, header):
        assert_refused(client.get(URL, headers={header: "for=1.2.3.4"}), 401)

    @pytest.mark.parametrize(
        "change", [{"host": "0.0.0.0"}, {"host": "::"}, {"require_keys": True}]
    )
    def test_an_address_that_others_reach_serves_nobody(self, serve, change):
        client = serve(**change)

        assert_refused(client.get(URL), 401)
        assert client.get("/healthz").status_code == 200


class TestAuthentication:
    def test_from_the_first_key_on_everything_needs_one(self, client, bearer):
        headers = bearer("admin")

        refused = client.get(URL)
        assert_refused(refused, 401)
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="trce"'
        assert refused.json()["type"] == "urn:problem:api-key-refused"
        assert client.get(URL, headers=headers).status_code == 200

    def test_only_what_is_for_all_is_open(self, client, bearer, settings):
        bearer()
        document = client.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            for method in methods:
                answer = client.request(method, path.replace("{", "").replace("}", ""))
                assert (answer.status_code == 401) == (path not in OPEN_TO_ALL), path

    def test_an_address_that_is_not_there_needs_one_too(self, client, bearer):
        bearer()

        assert_refused(client.get("/v1/nothing"), 401)

    def test_basic_takes_the_key_as_password(self, client, bearer):
        token = bearer()["Authorization"].split()[1]

        assert client.get(URL, headers=basic(f"anyone:{token}")).status_code == 200
        assert client.get(URL, headers=basic(f":{token}")).status_code == 200

    @pytest.mark.parametrize(
        ("headers", "says"),
        [
            pytest.param({"Authorization": ""}, "unknown kind", id="empty"),
            pytest.param({"Authorization": "Bearer"}, "Bearer KEY", id="no token"),
            pytest.param({"Authorization": "Bearer  "}, "Bearer KEY", id="blank token"),
            pytest.param({"Authorization": "Bearer a b"}, "Bearer KEY", id="two tokens"),
            pytest.param({"Authorization": "Bearer sk-123"}, "not valid", id="a key of others"),
            pytest.param({"Authorization": "Digest x"}, "unknown kind", id="Digest"),
            pytest.param({"Authorization": "Basic !!!"}, "Base64", id="no Base64"),
            pytest.param({"Authorization": "Basic é".encode()}, "Base64", id="no ASCII"),
            pytest.param(basic(b"\xff:\xfe"), "UTF-8", id="no UTF-8"),
            pytest.param(basic("user"), "missing", id="no colon"),
            pytest.param(basic("user:"), "missing", id="no password"),
            pytest.param({"Authorization": "Bearer " + "x" * 5000}, "too long", id="long"),
        ],
    )
    def test_malformed_credentials_say_what_would_be_right(self, client, bearer, headers, says):
        bearer()
        response = client.get(URL, headers=headers)

        assert_refused(response, 401)
        assert says in response.json()["detail"]

    def test_two_credentials_are_none(self, client, bearer):
        header = ("Authorization", bearer()["Authorization"])

        assert_refused(client.get(URL, headers=[header, header]), 401)

    def test_a_strangers_body_is_not_read(self, client, bearer):
        bearer()
        response = client.post(URL, content=b"{", headers={"Content-Type": "application/json"})

        assert_refused(response, 401)

    def test_expired_and_revoked_keys_are_told_apart_from_unknown_ones(self, client, keys, bearer):
        bearer()
        key, token = keys.create(scopes=["generate"])
        keys.revoke(key.id)
        response = client.get(URL, headers={"Authorization": f"Bearer {token}"})

        assert_refused(response, 401)
        assert "revoked" in response.json()["detail"]


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "method", "address", "body"),
        [
            ("generate", "POST", URL, APPLE),
            ("generate", "GET", URL, None),
            ("erase", "POST", "/v1/erasures", WEAPONS),
            ("erase", "GET", "/v1/erasures", None),
            ("admin", "POST", "/v1/models/waiting/promotion", None),
            ("admin", "POST", "/v1/models/safe/retirement", None),
        ],
    )
    def test_without_the_scope_it_is_a_403_that_names_it(
        self, client, bearer, scope, method, address, body
    ):
        others = {"generate", "erase"} - {scope}
        refused = client.request(method, address, json=body, headers=bearer(*others))

        assert_refused(refused, 403)
        assert f"`{scope}`" in refused.json()["detail"]
        assert client.request(method, address, json=body, headers=bearer(scope)).is_success
        assert client.request(method, address, json=body, headers=bearer("admin")).is_success

    def test_every_key_reads_models_and_presets(self, client, bearer):
        for scope in ("generate", "erase", "admin"):
            for address in ("/v1/models", "/v1/models/safe", "/v1/presets"):
                assert client.get(address, headers=bearer(scope)).status_code == 200

    def test_a_scope_is_missed_before_the_body_is_judged(self, client, bearer):
        assert_refused(client.post(URL, json={}, headers=bearer("erase")), 403)


def dependencies(dependant):
    """The names of all functions that a route depends on."""
    for one in dependant.dependencies:
        yield one.call.__name__
        yield from dependencies(one)


def api_routes(routes):
    """FastAPI keeps the routers that it includes, so look into them."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif included := getattr(route, "original_router", None):
            yield from api_routes(included.routes)


def test_every_route_says_which_scope_it_needs(client):
    routes = list(api_routes(client.app.routes))
    needs = {
        (route.path, route.endpoint.__name__): set(dependencies(route.dependant))
        & {"check_scope", "allow_any_scope"}
        for route in routes
    }

    operations = [
        operation
        for methods in client.get("/openapi.json").json()["paths"].values()
        for operation in methods.values()
    ]
    assert len(needs) == len(routes)
    assert sum(route.include_in_schema for route in routes) == len(operations)
    open_to_all = {path for (path, _), scopes in needs.items() if not scopes}
    assert open_to_all == {
        *("/healthz", "/readyz", "/login", "/static/{name}"),
        *("/docs", "/redoc", "/reference/{name}"),
    }


class TestTenants:
    @pytest.fixture
    def theirs(self, client, bearer):
        return client.post(URL, json=APPLE, headers=bearer(tenant="rival")).json()["id"]

    def test_jobs_of_others_do_not_exist(self, client, bearer, theirs, worker):
        worker.draw()
        mine = bearer()
        for method, address in [
            ("GET", f"{URL}/{theirs}"),
            ("DELETE", f"{URL}/{theirs}"),
            ("GET", f"{URL}/{theirs}/images/0"),
        ]:
            refused = client.request(method, address, headers=mine)
            unknown = client.request(method, address.replace(theirs, "0" * 32), headers=mine)
            assert_refused(refused, 404)
            assert refused.json()["detail"].replace(theirs, "") == unknown.json()[
                "detail"
            ].replace("0" * 32, "")

    def test_lists_hold_ones_own_only(self, client, bearer, theirs):
        mine = bearer()
        own = client.post(URL, json=APPLE, headers=mine).json()["id"]

        assert [one["id"] for one in client.get(URL, headers=mine).json()["data"]] == [own]
        assert_refused(client.get(f"{URL}?after={theirs}", headers=mine), 404)

    def test_an_admin_sees_all(self, client, bearer, theirs):
        admin = bearer("admin")

        assert client.get(f"{URL}/{theirs}", headers=admin).status_code == 200
        assert [one["id"] for one in client.get(URL, headers=admin).json()["data"]] == [theirs]

    def test_idempotency_keys_of_two_tenants_do_not_meet(self, client, bearer):
        once = {"Idempotency-Key": "order-1"}
        first = client.post(URL, json=APPLE, headers=bearer() | once)
        other = client.post(URL, json={"prompt": "a pear"}, headers=bearer(tenant="rival") | once)

        assert (first.status_code, other.status_code) == (202, 202)

    def test_a_job_remembers_its_tenant_and_request(self, client, bearer, queue, worker):
        headers = bearer() | {"X-Request-Id": "trace-7"}
        job = client.post(URL, json=APPLE, headers=headers).json()

        lease = worker.claim()
        assert (lease.job_id, lease.tenant, lease.request_id) == (job["id"], "acme", "trace-7")
        assert queue.get(job["id"]).request_id == "trace-7"


@examples(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"Bearer ", b"Basic ", b"basic\t"]))
def test_whatever_stands_in_the_header_is_a_key_or_a_refusal(data, scheme):
    with contextlib.suppress(ApiKeyRefused):
        assert api_key(Headers(raw=[(b"authorization", scheme + data)]))


def test_no_key_is_ever_logged(client, bearer):
    from structlog.testing import capture_logs

    headers = bearer()
    secret = headers["Authorization"].split("_", 2)[2]
    with capture_logs() as lines:
        client.get(URL, headers=headers)
        client.get(f"/v1/{secret[:10]}", headers={"Authorization": f"Bearer {secret}"})

    assert len(lines) == 2
    assert secret not in str(lines)


def test_without_redis_nobody_is_taken_for_a_stranger(client, bearer, broker):
    headers = bearer()
    assert client.get("/v1/models", headers=headers).status_code == 200
    broker.kill()
    try:
        assert_refused(client.get("/v1/models", headers=headers), 503)
    finally:
        broker.start()
