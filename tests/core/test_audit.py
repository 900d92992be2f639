"""The audit trail: signed, chained, and whoever tampers with it is noticed."""

import json
import threading

import pytest
import redis

from core.audit import KEY, AuditTrail
from core.errors import AuditEntryNotFound, Invalid
from core.key_folder import KeyFolder
from core.signing import Signer, Verifier


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def trail(client, tmp_path):
    signer = Signer.load_or_create(tmp_path)
    return AuditTrail(client, signer, Verifier.load(tmp_path))


def write(trail: AuditTrail, *subjects: str, **fields) -> None:
    for subject in subjects:
        values = {"actor": "key 1", "tenant": "acme"} | fields
        with trail.recording("model.promotion", subject, **values):
            pass


def rewrite(client, number: int, **changes) -> None:
    """As somebody with access to Redis, but not to the key, would."""
    entries = client.xrange(KEY)
    client.delete(KEY)
    for stream_id, fields in entries:
        entry = json.loads(fields["entry"])
        if entry["number"] == number:
            entry |= changes
        client.xadd(KEY, {"entry": json.dumps(entry)}, id=stream_id)


def test_what_was_done_can_be_read_newest_first(trail):
    write(trail, "a", "b", reason="passed", request_id="r1")

    second, first = trail.page(limit=10)
    assert (first.number, first.subject, second.subject) == (1, "a", "b")
    assert (first.actor, first.reason, first.outcome) == ("key 1", "passed", "ordered")
    assert trail.broken([second, first]) is None


def test_it_is_written_before_it_is_done(trail):
    with trail.recording("x", "y", actor="key 1", tenant="acme"):
        assert trail.page(limit=10)[0].action == "x"


def test_what_was_refused_is_said_to_be(trail):
    with pytest.raises(Invalid), trail.recording("x", "y", actor="key 1", tenant="acme"):
        raise Invalid("no")

    refused, ordered = trail.page(limit=10)
    assert (ordered.outcome, refused.outcome) == ("ordered", "refused")
    assert refused.detail == {"refused": "Invalid"}


def test_pages_follow_each_other(trail):
    write(trail, *"abcde")

    first = trail.page(limit=2)
    then = trail.page(limit=10, before=first[-1].number)
    assert [entry.subject for entry in (*first, *then)] == list("edcba")
    with pytest.raises(AuditEntryNotFound):
        trail.page(limit=1, before=99)


@pytest.mark.parametrize(
    "changes", [{"reason": "a better one"}, {"actor": "key 2"}, {"previous": "0" * 64}]
)
def test_a_changed_entry_is_found(trail, client, changes):
    write(trail, *"abcde")
    rewrite(client, 3, **changes)

    assert trail.broken(trail.page(limit=10)) in {3, 4}


def test_an_entry_that_was_taken_out_is_missed(trail, client):
    write(trail, *"abcde")
    client.xdel(KEY, "3-0")

    assert trail.broken(trail.page(limit=10)) == 4


def test_a_trail_signed_by_another_key_is_not_ours(trail, client, tmp_path):
    other = Signer.load_or_create(tmp_path / "other")
    write(AuditTrail(client, other, Verifier.load(tmp_path / "other")), "a")

    assert trail.broken(trail.page(limit=10)) == 1


def test_many_writers_make_one_chain(trail):
    threads = [threading.Thread(target=write, args=(trail, *"abcd")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    entries = trail.page(limit=100)
    assert [entry.number for entry in entries] == list(range(20, 0, -1))
    assert trail.broken(entries) is None


class TestRevokedKeys:
    """A thief of a revoked key may not add to the trail; what it signed before still holds."""

    def test_entries_of_before_the_revocation_hold(self, trail, tmp_path):
        write(trail, "a", "b")
        old = Signer.load(tmp_path).key_id
        KeyFolder(tmp_path).rotate()
        write(trail, "c")
        KeyFolder(tmp_path).revoke(old)

        entries = trail.page(limit=10)
        assert trail.broken(entries) is None
        assert trail.broken(entries[1:], chained=True) is None

    def test_an_entry_that_nothing_newer_names_does_not(self, trail, client, tmp_path):
        write(trail, "a")
        old = tmp_path / "stolen"
        (old / "trusted").mkdir(parents=True)
        for name in ("signing.pem", f"trusted/{Signer.load(tmp_path).key_id}.pem"):
            (old / name).write_bytes((tmp_path / name).read_bytes())
        thief = AuditTrail(client, Signer.load(old), Verifier.load(old))
        KeyFolder(tmp_path).rotate()
        write(trail, "b")
        KeyFolder(tmp_path).revoke(Signer.load(old).key_id)

        write(thief, "forged")

        assert trail.broken(trail.page(limit=10)) == 3
