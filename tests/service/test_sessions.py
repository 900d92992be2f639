"""A session stands for a key in a browser: no longer than the key, and for no other site."""

import pytest

from service.sessions import COOKIE

PAGE = {"Accept": "text/html"}


@pytest.fixture
def log_in(client, keys):
    """Log a new key in; returns the key's record."""

    def log_in(*scopes, **fields):
        key, token = keys.create(scopes=scopes or ["admin"], tenant="acme", **fields)
        response = client.post("/login", data={"key": f" {token} "}, follow_redirects=False)
        assert response.status_code == 303
        return key

    return log_in


def test_a_person_without_a_key_is_shown_the_way_in(client, bearer):
    bearer("generate")

    shown = client.get("/", headers=PAGE, follow_redirects=False)
    part = client.get("/comparisons/x", headers={"HX-Request": "true"})
    told = client.get("/")
    assert (shown.status_code, shown.headers["Location"]) == (303, "/login")
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/login")
    assert (told.status_code, told.headers["Content-Type"]) == (401, "application/problem+json")


def test_the_login_needs_no_key_and_its_parts_neither(client, bearer):
    bearer("generate")

    page = client.get("/login")
    assert page.status_code == 200
    for address in ("/static/page.css", "/static/htmx.min.js", "/static/icon.svg"):
        assert address in page.text
        assert client.get(address).status_code == 200
    assert client.get("/static/nothing", headers=PAGE, follow_redirects=False).status_code == 303


def test_a_key_opens_a_session_that_no_script_reads(client, log_in):
    log_in()

    (cookie,) = client.cookies.jar
    assert cookie.name == COOKIE
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "strict"
    assert client.get("/v1/generations").status_code == 200


def test_the_cookie_is_kept_off_plain_http_where_there_is_https(client, keys):
    _, token = keys.create(scopes=["admin"])
    response = client.post("https://localhost/login", data={"key": token}, follow_redirects=False)

    assert "; Secure" in response.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("origin", "secure"),
    [("https://localhost", True), ("http://localhost", False), ("null", False)],
)
def test_the_browser_says_whether_a_proxy_takes_tls(client, keys, origin, secure):
    """A proxy on another machine speaks http to the service, and is not believed."""
    _, token = keys.create(scopes=["admin"])
    sent = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    for address, body in (("/login", {"key": token}), ("/logout", {})):
        response = client.post(address, data=body, headers=sent, follow_redirects=False)
        assert response.status_code == 303
        assert ("; Secure" in response.headers["Set-Cookie"]) is secure
        client.cookies.set(COOKIE, response.cookies.get(COOKIE) or "")


@pytest.mark.parametrize("sent", ["", "trce_nonsense", "trce_0123456789ab_" + "x" * 43, "\x00"])
def test_what_is_no_key_opens_none(client, bearer, sent):
    bearer("admin")

    response = client.post("/login", data={"key": sent})
    assert response.status_code == 401
    assert "not valid here" in response.text
    assert not client.cookies


def test_neither_store_nor_cookie_holds_the_secret(client, keys, parts):
    _, token = keys.create(scopes=["admin"])
    client.post("/login", data={"key": token})

    secret = token.rpartition("_")[2]
    assert secret not in str(client.cookies)
    for name in parts.client.keys("session:*"):
        assert client.cookies[COOKIE] not in name
        assert secret not in parts.client.get(name)


class TestEnds:
    def test_with_its_key(self, client, log_in, keys):
        key = log_in()
        keys.revoke(key.id)

        assert client.get("/v1/generations").status_code == 401

    def test_when_the_key_gets_another_secret(self, client, log_in, keys):
        key = log_in()
        keys.rotate(key.id, overlap_s=0)

        assert client.get("/v1/generations").status_code == 401

    def test_when_it_is_closed_whatever_the_browser_keeps(self, client, log_in):
        log_in()
        kept = dict(client.cookies)
        client.post("/logout")

        assert not client.cookies
        client.cookies.update(kept)
        refused = client.get("/v1/generations")
        assert refused.status_code == 401
        assert "log in again" in refused.json()["detail"]

    def test_after_half_a_day(self, client, log_in, parts):
        log_in()

        (name,) = parts.client.keys("session:*")
        assert 11 * 3600 < parts.client.ttl(name) <= 12 * 3600


class TestOtherSites:
    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param({"Sec-Fetch-Site": "cross-site"}, id="another site"),
            pytest.param({"Sec-Fetch-Site": "same-site"}, id="a neighbour"),
            pytest.param({"Origin": "http://evil.example"}, id="over plain http"),
            pytest.param({"Origin": "null"}, id="from nowhere"),
        ],
    )
    def test_cannot_use_the_session_to_change_anything(self, client, log_in, headers, queue):
        log_in()

        for path in ("/v1/generations", "/comparisons", "/logout"):
            assert client.post(path, headers=headers).status_code == 401
        assert client.post("/login", headers=headers, data={"key": ""}).status_code == 403
        assert queue.counts.queued("generation") == 0
        assert client.get("/v1/generations").status_code == 200, "the session is still open"

    @pytest.mark.parametrize("path", ["/comparisons", "/logout"])
    def test_cannot_where_no_key_is_needed_either(self, client, path):
        assert client.post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403

    @pytest.mark.parametrize(
        "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}]
    )
    def test_this_one_can(self, client, log_in, headers):
        log_in()

        response = client.post("/v1/generations", headers=headers, json={"prompt": "a cat"})
        assert response.status_code == 202


def test_a_session_may_do_what_its_key_may(client, log_in):
    log_in("generate")

    assert client.get("/v1/audit").status_code == 403
    assert client.get("/v1/generations").status_code == 200
