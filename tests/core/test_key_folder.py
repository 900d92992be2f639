"""One key signs, some are trusted, some were revoked; every process follows while it runs."""

import fcntl
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from core.errors import (
    Misconfigured,
    SigningKeyInUse,
    SigningKeyNotFound,
    UntrustedModel,
)
from core.key_folder import KeyFolder
from core.signing import Signer, Verifier
from tests.models_on_disk import ModelsOnDisk

DOCUMENT = {"id": "m"}
FORK = multiprocessing.get_context("fork")
PROCESSES = 8


def make_at_once(folder: Path) -> list[str]:
    """What as many processes take for the key, of which each asks for one at the same moment."""
    barrier, answers = FORK.Barrier(PROCESSES), FORK.SimpleQueue()

    def ask() -> None:
        barrier.wait()
        signer = Signer.load_or_create(folder)
        Verifier.load(folder).check(DOCUMENT, signer.sign(DOCUMENT))
        answers.put(signer.key_id)

    processes = [FORK.Process(target=ask) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    return [answers.get() for _ in processes]


class TestTheFirstKey:
    @pytest.mark.parametrize("turn", range(5))
    def test_processes_that_start_at_once_make_one_key(self, tmp_path, turn):
        ids = make_at_once(tmp_path / "keys")

        assert len(set(ids)) == 1
        assert list(KeyFolder(tmp_path / "keys").trusted()) == ids[:1]

    def test_so_they_do_where_locks_hold_nobody(self, tmp_path, monkeypatch):
        """Some network file systems know no locks: the last word is the link's."""
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        folder = KeyFolder(tmp_path / "keys")
        folder.folder.mkdir()
        exists, asked = Path.exists, []

        def not_yet(path: Path) -> bool:
            """Both looks come before the other process has made its key."""
            if path != folder.signing_path:
                return exists(path)
            asked.append(path)
            if len(asked) == 2:
                monkeypatch.setattr(Path, "exists", exists)
                Signer.load_or_create(folder.folder)
            return False

        monkeypatch.setattr(Path, "exists", not_yet)
        folder.create()

        signer = Signer.load(folder.folder)
        assert list(folder.trusted()) == [signer.key_id]

    def test_nobody_else_can_read_it_and_no_draft_of_it_is_left(self, tmp_path):
        Signer.load_or_create(tmp_path)

        assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".lock",
            "signing.pem",
            "trusted",
        ]

    def test_a_crash_before_it_is_in_place_leaves_an_installation_that_starts(
        self, tmp_path, monkeypatch
    ):
        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", crash)
            with pytest.raises(KeyboardInterrupt):
                Signer.load_or_create(tmp_path)
        assert not (tmp_path / "signing.pem").exists()

        signer = Signer.load_or_create(tmp_path)
        Verifier.load(tmp_path).check(DOCUMENT, signer.sign(DOCUMENT))

    def test_a_folder_that_cannot_be_written_is_said_to_be(self, tmp_path):
        (tmp_path / "file").write_text("no folder")

        with pytest.raises(Misconfigured, match="cannot be written"):
            Signer.load_or_create(tmp_path / "file" / "keys")


class TestRotation:
    def test_a_running_signer_signs_with_the_new_key(self, tmp_path):
        signer = Signer.load_or_create(tmp_path)
        old = signer.key_id

        new = KeyFolder(tmp_path).rotate()

        assert signer.key_id == new != old
        assert signer.sign(DOCUMENT).key_id == new

    def test_a_running_verifier_accepts_both_keys(self, tmp_path):
        signer = Signer.load_or_create(tmp_path)
        verifier, before = Verifier.load(tmp_path), signer.sign(DOCUMENT)

        KeyFolder(tmp_path).rotate()

        after = signer.sign(DOCUMENT)
        assert after.key_id != before.key_id
        verifier.check(DOCUMENT, before)
        verifier.check(DOCUMENT, after)

    def test_a_key_that_is_gone_signs_nothing(self, tmp_path):
        signer = Signer.load_or_create(tmp_path)
        (tmp_path / "signing.pem").unlink()

        with pytest.raises(Misconfigured):
            signer.sign(DOCUMENT)


class TestRevocation:
    def test_a_running_verifier_refuses_what_the_key_signed(self, tmp_path):
        signer = Signer.load_or_create(tmp_path)
        verifier, signature = Verifier.load(tmp_path), signer.sign(DOCUMENT)
        KeyFolder(tmp_path).rotate()

        KeyFolder(tmp_path).revoke(signature.key_id)

        with pytest.raises(UntrustedModel, match=f"{signature.key_id}, which was revoked"):
            verifier.check(DOCUMENT, signature)
        verifier.check(DOCUMENT, signer.sign(DOCUMENT))

    def test_starting_again_does_not_trust_it_again(self, tmp_path):
        old = Signer.load_or_create(tmp_path).key_id
        KeyFolder(tmp_path).rotate()
        KeyFolder(tmp_path).revoke(old)

        Signer.load_or_create(tmp_path)

        assert not Verifier.load(tmp_path).trusts(old)

    def test_a_key_put_back_among_the_trusted_stays_revoked(self, tmp_path):
        old = Signer.load_or_create(tmp_path).key_id
        folder = KeyFolder(tmp_path)
        kept = (folder.trusted_folder / f"{old}.pem").read_bytes()
        folder.rotate()
        folder.revoke(old)

        (folder.trusted_folder / "again.pem").write_bytes(kept)

        assert not Verifier.load(tmp_path).trusts(old)

    def test_the_key_that_signs_is_not_revoked(self, tmp_path):
        signer = Signer.load_or_create(tmp_path)

        with pytest.raises(SigningKeyInUse, match="rotate it first"):
            KeyFolder(tmp_path).revoke(signer.key_id)
        assert Verifier.load(tmp_path).trusts(signer.key_id)

    def test_an_unknown_key_is_not_found(self, tmp_path):
        Signer.load_or_create(tmp_path)

        with pytest.raises(SigningKeyNotFound):
            KeyFolder(tmp_path).revoke("0" * 16)

    def test_a_broken_file_among_the_trusted_harms_no_running_process(self, tmp_path):
        signer = Signer.load_or_create(tmp_path)
        verifier = Verifier.load(tmp_path)
        (tmp_path / "trusted" / "x.pem").write_text("hello")

        verifier.check(DOCUMENT, signer.sign(DOCUMENT))
        assert verifier.trusts(signer.key_id)
        assert not verifier.trusts("x")


class TestModels:
    @pytest.fixture
    def models(self, tmp_path: Path) -> ModelsOnDisk:
        made = ModelsOnDisk(tmp_path)
        made.add("first")
        return made

    def test_models_of_a_revoked_key_are_refused_while_running(self, models):
        keys, old = KeyFolder(models.keys), models.signer.key_id
        running = models.open()
        keys.rotate()
        models.add("second")
        keys.revoke(old)

        assert [one.id for one in running.all()] == ["second"]
        assert "was revoked" in running.untrusted()["first"]

    def test_signed_again_they_outlive_the_key(self, models):
        keys, old = KeyFolder(models.keys), models.signer.key_id
        keys.rotate()
        models.registrar.sign_again("first", models.signer)
        keys.revoke(old)

        assert models.registry.get("first").signed_by == models.signer.key_id != old

    def test_a_changed_model_is_not_signed_again(self, models):
        KeyFolder(models.keys).rotate()
        (models.folder / "first" / "unet" / "weights.safetensors").write_text("others")

        for vouched in (False, True):
            with pytest.raises(UntrustedModel, match="differs"):
                models.registrar.sign_again("first", models.signer, vouched=vouched)

    def test_what_a_revoked_key_signed_is_signed_again_only_when_vouched_for(self, models):
        keys, old = KeyFolder(models.keys), models.signer.key_id
        keys.rotate()
        keys.revoke(old)
        with pytest.raises(UntrustedModel, match="was revoked"):
            models.registrar.sign_again("first", models.signer)

        models.registrar.sign_again("first", models.signer, vouched=True)

        assert models.registry.get("first").signed_by == models.signer.key_id
