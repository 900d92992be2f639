"""API keys, made and ended over HTTP by those who may."""

import time

import pytest

URL = "/v1/keys"


@pytest.fixture
def admin(bearer):
    return bearer("admin")


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def make(client, admin, **fields) -> dict:
    response = client.post(URL, json={"scopes": ["generate"]} | fields, headers=admin)
    assert response.status_code == 201, response.text
    return response.json()


def test_a_new_key_opens_the_door_and_is_shown_once(client, admin):
    made = make(client, admin, tenant="acme", label="the shop", expires_in_s=60)

    assert client.get("/v1/generations", headers=headers(made["key"])).status_code == 200
    assert client.post("/v1/erasures", json={}, headers=headers(made["key"])).status_code == 403
    assert made["expires_at"] == pytest.approx(time.time() + 60, abs=5)
    secret = made.pop("key").split("_", 2)[2]
    again = client.get(f"{URL}/{made['id']}", headers=admin)
    everyone = client.get(URL, headers=admin)
    assert again.json() == made
    assert made in everyone.json()["data"]
    for response in (again, everyone, client.get("/v1/audit", headers=admin)):
        assert secret not in response.text
        assert 'digest":' not in response.text.replace('"previous_digest": "', "")


def test_the_first_key_may_be_made_without_one_and_closes_the_service(client):
    made = client.post(URL, json={"scopes": ["admin"]}).json()

    assert client.get(URL).status_code == 401
    assert client.get(URL, headers=headers(made["key"])).status_code == 200


def test_a_rotated_key_has_two_secrets_until_the_overlap_ends(client, admin):
    made = make(client, admin)
    both = client.post(f"{URL}/{made['id']}/rotation", headers=admin).json()
    for key in (made["key"], both["key"]):
        assert client.get("/v1/models", headers=headers(key)).status_code == 200

    one = client.post(f"{URL}/{made['id']}/rotation", json={"overlap_s": 0}, headers=admin).json()

    assert client.get("/v1/models", headers=headers(one["key"])).status_code == 200
    for key in (made["key"], both["key"]):
        assert client.get("/v1/models", headers=headers(key)).status_code == 401


def test_a_revoked_key_is_refused_and_cannot_be_rotated(client, admin):
    made = make(client, admin)
    revoked = client.delete(f"{URL}/{made['id']}", headers=admin)

    assert revoked.json()["state"] == "revoked"
    assert client.get("/v1/models", headers=headers(made["key"])).status_code == 401
    assert client.delete(f"{URL}/{made['id']}", headers=admin).status_code == 200  # again: no harm
    rotation = client.post(f"{URL}/{made['id']}/rotation", headers=admin)
    assert rotation.status_code == 409


def test_operators_find_in_the_audit_trail_who_did_it(client, admin):
    made = make(client, admin, tenant="acme")
    client.delete(f"{URL}/{made['id']}", headers=admin)

    entries = client.get("/v1/audit", headers=admin).json()["data"]

    assert [(entry["action"], entry["subject"]) for entry in entries[:2]] == [
        ("key.revoked", made["id"]),
        ("key.created", "acme"),
    ]


@pytest.mark.parametrize("scope", ["generate", "erase"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", URL),
        ("POST", URL),
        ("GET", f"{URL}/1"),
        ("DELETE", f"{URL}/1"),
        ("POST", f"{URL}/1/rotation"),
    ],
)
def test_only_an_admin_may(client, bearer, scope, method, path):
    body = {"json": {"scopes": ["admin"]}} if method == "POST" and path == URL else {}

    assert client.request(method, path, headers=bearer(scope), **body).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"scopes": ["admin"], "tenant": "A B"}, "tenant"),
        ({"scopes": ["admin"], "label": "x" * 101}, "label"),
        ({"scopes": ["admin"], "expires_in_s": 0}, "expires_in_s"),
        ({"scopes": ["admin"], "expires_in_s": "60"}, "expires_in_s"),
        ({"scopes": ["admin"], "secret": "mine"}, "secret"),
        ({}, "scopes"),
    ],
)
def test_a_key_that_cannot_be_is_refused(client, admin, body, field):
    before = client.get(URL, headers=admin).json()

    response = client.post(URL, json=body, headers=admin)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert client.get(URL, headers=admin).json() == before


@pytest.mark.parametrize("key_id", ["0" * 12, "x", "%00", "*", "a" * 100])
def test_an_unknown_key_is_not_found(client, admin, key_id):
    assert client.get(f"{URL}/{key_id}", headers=admin).status_code == 404
    assert client.delete(f"{URL}/{key_id}", headers=admin).status_code == 404
    assert client.post(f"{URL}/{key_id}/rotation", headers=admin).status_code == 404
