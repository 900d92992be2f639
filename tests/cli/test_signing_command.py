"""`trce signing` on an installation whose other processes go on running."""

from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from cli.commands.signing import app
from core.audit import AuditTrail
from core.errors import SigningKeyInUse, UntrustedModel
from core.manifests import ModelStatus
from core.redis_connection import connect
from core.registrar import Registrar
from core.signing import Signer, Verifier
from core.status_serials import StatusSerials
from tests.models_on_disk import ModelsOnDisk


@pytest.fixture
def models(tmp_path: Path) -> ModelsOnDisk:
    made = ModelsOnDisk(tmp_path)
    made.add("first")
    made.add("second")
    return made


@pytest.fixture
def trce(tmp_path, redis_url, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis_url)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return run


def actions(models: ModelsOnDisk, url: str) -> list[tuple[str, str]]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        trail = AuditTrail(client, Signer.load(models.keys), Verifier.load(models.keys))
        entries = trail.page(limit=100)
    assert trail.broken(entries) is None
    return [(entry.action, entry.subject) for entry in reversed(entries)]


def test_a_key_is_rotated_and_the_old_one_revoked_without_a_model_missing(models, trce, redis_url):
    running, old = models.open(), models.signer.key_id

    assert old in trce("rotate")
    assert "revoked" in trce("revoke", old)

    assert [one.id for one in running.all()] == ["first", "second"]
    assert {one.signed_by for one in running.all()} == {models.signer.key_id}
    assert old != models.signer.key_id
    assert actions(models, redis_url) == [
        ("signing-key.rotated", old),
        ("signing-key.revoked", old),
    ]


def test_after_a_theft_only_what_somebody_vouches_for_is_served_again(models, trce, redis_url):
    running, stolen = models.open(), models.signer.key_id
    trce("rotate", "--no-resign")
    trce("revoke", stolen)
    assert running.all() == []
    with pytest.raises(UntrustedModel):
        trce("resign", "first")

    trce("resign", "first", "--vouch")

    assert [one.id for one in running.all()] == ["first"]
    assert list(running.untrusted()) == ["second"]
    assert ("model.vouched", "first") in actions(models, redis_url)


def test_a_manifest_that_was_put_back_is_signed_for_whoever_vouches_for_it_alone(
    models, trce, redis_url
):
    """Signed anew it would be the newest one, and served."""
    path = models.folder / "first" / "manifest.json"
    with connect(redis_url) as client:
        running = models.open(StatusSerials(client))
        Registrar(running).set_status("first", ModelStatus.SERVING, models.signer)
        serving = path.read_bytes()
        Registrar(running).set_status("first", ModelStatus.RETIRED, models.signer)
        path.write_bytes(serving)

        assert "first is signed" not in trce("rotate")
        assert "first is signed" not in trce("resign")
        with pytest.raises(UntrustedModel, match="put back"):
            trce("resign", "first")

        assert path.read_bytes() == serving
        with pytest.raises(UntrustedModel, match="put back"):
            running.served("first")

        trce("resign", "first", "--vouch")
        assert models.open(StatusSerials(client)).served("first").status == "serving"


def test_the_key_that_signs_is_not_revoked(models, trce):
    with pytest.raises(SigningKeyInUse):
        trce("revoke", models.signer.key_id)


def test_vouching_is_for_models_by_name(models, trce):
    assert "name the models" in trce("resign", "--vouch")


def test_keys_are_listed_with_what_they_count_for(models, trce):
    trce("rotate")

    listed = trce("list")
    assert "signs" in listed
    assert "trusted" in listed
    assert "first, second" in listed


def test_keys_for_pictures_are_rotated_apart(models, trce, tmp_path):
    pictures = Signer.load_or_create(tmp_path / "keys" / "pictures")
    old, of_models = pictures.key_id, models.signer.key_id

    trce("rotate", "--pictures")

    assert pictures.key_id != old
    assert models.signer.key_id == of_models
