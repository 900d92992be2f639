"""API keys, in a real Redis."""

import pytest
import redis

from core.errors import ApiKeyNotFound, ApiKeyRefused, ApiKeyRevoked, Invalid
from core.keys import KeyStore


class Clock:
    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def keys(client, clock):
    return KeyStore(client, now=clock)


def test_a_key_opens_with_its_tenant_and_scopes(keys):
    _, token = keys.create(scopes=["erase", "generate"], tenant="acme", label="CI")

    key = keys.check(token)
    assert (key.tenant, key.scopes, key.label) == ("acme", ("generate", "erase"), "CI")


def test_nothing_in_the_store_is_the_secret(keys, client):
    _, token = keys.create(scopes=["generate"])
    _, again = keys.rotate(keys.all()[0].id, overlap_s=60)

    stored = str([client.get(name) for name in client.keys("apikey:*")])
    for secret in (token.split("_", 2)[2], again.split("_", 2)[2]):
        assert len(secret) == 43
        assert secret not in stored


def test_a_record_does_not_print_its_digest(keys):
    key, _ = keys.create(scopes=["generate"])

    assert key.digest not in repr(key)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "trce_",
        "sk-abc",
        "trce_000000000000_" + "A" * 43,
        "trce_\u0660" * 9,
        "\ud800",
        "x" * 10_000,
    ],
)
def test_what_is_no_key_is_refused(keys, token):
    keys.create(scopes=["generate"])

    with pytest.raises(ApiKeyRefused, match="not valid"):
        keys.check(token)


def test_a_right_id_with_a_wrong_secret_is_refused(keys):
    _, token = keys.create(scopes=["generate"])
    swapped = token[:-1] + ("A" if token[-1] != "A" else "B")

    with pytest.raises(ApiKeyRefused, match="not valid"):
        keys.check(swapped)


def test_a_key_expires_at_its_time(keys, clock):
    _, token = keys.create(scopes=["generate"], life_s=60)
    clock.at += 59.9
    keys.check(token)
    clock.at += 0.1

    with pytest.raises(ApiKeyRefused, match="expired"):
        keys.check(token)


def test_a_revoked_key_is_refused_for_ever(keys, clock):
    key, token = keys.create(scopes=["generate"])
    first = keys.revoke(key.id).revoked_at
    clock.at += 5

    assert keys.revoke(key.id).revoked_at == first
    with pytest.raises(ApiKeyRefused, match="revoked"):
        keys.check(token)
    with pytest.raises(ApiKeyRevoked):
        keys.rotate(key.id, overlap_s=0)


def test_after_a_rotation_both_secrets_work_for_a_while(keys, clock):
    key, old = keys.create(scopes=["generate"])
    _, new = keys.rotate(key.id, overlap_s=60)

    assert keys.check(old).id == keys.check(new).id == key.id
    clock.at += 60
    keys.check(new)
    with pytest.raises(ApiKeyRefused):
        keys.check(old)


def test_without_overlap_the_old_secret_is_dead_at_once(keys):
    key, old = keys.create(scopes=["generate"])
    keys.rotate(key.id, overlap_s=0)

    with pytest.raises(ApiKeyRefused):
        keys.check(old)


def test_an_installation_that_had_a_key_stays_closed(keys):
    assert not keys.exist()
    key, _ = keys.create(scopes=["generate"])
    keys.revoke(key.id)

    assert keys.exist()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"scopes": []}, id="no scope"),
        pytest.param({"scopes": ["root"]}, id="unknown scope"),
        pytest.param({"scopes": ["generate"], "tenant": "No Such"}, id="tenant"),
        pytest.param({"scopes": ["generate"], "tenant": ""}, id="no tenant"),
        pytest.param({"scopes": ["generate"], "label": "x" * 101}, id="long label"),
        pytest.param({"scopes": ["generate"], "life_s": 0}, id="no life"),
    ],
)
def test_a_key_that_cannot_be_is_not_made(keys, wrong):
    with pytest.raises(Invalid):
        keys.create(**wrong)
    assert not keys.exist()


def test_an_unknown_id_is_not_found(keys):
    for verb in (keys.revoke, keys.get, lambda name: keys.rotate(name, overlap_s=0)):
        with pytest.raises(ApiKeyNotFound, match="trce keys list"):
            verb("nothing")
