"""The registry returns what is signed and whole, and nothing else."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from core.errors import (
    ModelExists,
    ModelNotFound,
    ModelNotServed,
    ModelsUnavailable,
    StatusUnreachable,
    UntrustedModel,
)
from core.making import describe
from core.manifests import Drawing, Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.serial_record import NoSerials
from core.signed_files import signed_file
from core.signing import Signer, Verifier
from tests.edits import pistol_edit
from trainer.folders import new_folder

CONFIG = "unet/config.json"
DRAWING = Drawing(native_px=64, multiple_px=16, max_px=128)
EDIT = pistol_edit()


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.load_or_create(tmp_path / "keys")


@pytest.fixture
def registry(tmp_path: Path, signer: Signer) -> ModelRegistry:
    return ModelRegistry(
        tmp_path / "models",
        Verifier.load(tmp_path / "keys"),
        serve_unerased_base=False,
        default_model="erased",
    )


def add(registry: ModelRegistry, signer: Signer, model_id: str = "erased", **changes) -> Manifest:
    folder = registry.making.begin(model_id)
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.safetensors").write_bytes(changes.pop("weights", b"weights"))
    for name, data in changes.pop("files", {}).items():
        (folder / name).write_bytes(data)
    values = {"edit": EDIT, "status": ModelStatus.CANDIDATE} | changes
    manifest = describe(
        folder, model_id=model_id, family="sd1", drawing=DRAWING, code_version="1", **values
    )
    return Registrar(registry).add(manifest, folder, signer)


def test_a_model_becomes_visible_whole(registry, signer):
    add(registry, signer)

    manifest = registry.get("erased")
    manifest.check_files(registry.path("erased"))
    assert [found.id for found in registry.all()] == ["erased"]


def test_a_model_being_made_is_not_listed(registry):
    (registry.making.begin("half") / "manifest.json").write_text("{}")

    assert registry.all() == []
    assert registry.untrusted() == {}


def test_adding_the_same_model_twice_is_one_model(registry, signer):
    first = add(registry, signer)

    assert add(registry, signer).content_digest == first.content_digest


def test_an_id_is_not_given_to_other_weights(registry, signer):
    add(registry, signer)

    with pytest.raises(ModelExists):
        add(registry, signer, weights=b"others")


def test_a_bucket_that_is_away_costs_the_model_that_is_behind_and_no_other(registry, signer):
    add(registry, signer)
    add(registry, signer, "behind", weights=b"others")

    class Away:
        def fetch(self, model_id: str) -> bool:
            raise ModelsUnavailable("the bucket does not answer")

    class Newer(NoSerials):
        def newest(self, model_id: str) -> int:
            return 1 << 60 if model_id == "behind" else 0

    registry.mirror, registry.serials = Away(), Newer()
    trusted, reasons = registry.survey()

    assert [manifest.id for manifest in trusted] == ["erased"]
    assert reasons == {
        "behind": "model behind cannot be brought up to date for now: the bucket does not answer"
    }


class TestDiscarding:
    def discard(self, registry, manifest: Manifest, digest: str = "", *, unwanted=lambda: True):
        digest = digest or manifest.content_digest
        return Registrar(registry).discard(manifest.id, digest, is_unwanted=unwanted)

    def test_a_candidate_goes_whole_and_its_name_is_free_again(self, registry, signer):
        candidate = add(registry, signer)

        assert self.discard(registry, candidate)

        assert registry.survey() == ([], {})
        assert list((registry.folder / ".incoming").iterdir()) == []
        assert not self.discard(registry, candidate)
        assert add(registry, signer, weights=b"other").content_digest != candidate.content_digest

    @pytest.mark.parametrize("status", [ModelStatus.SERVING, ModelStatus.RETIRED])
    def test_what_somebody_promoted_stays(self, registry, signer, status):
        add(registry, signer)
        for one in (ModelStatus.SERVING, status):
            changed = Registrar(registry).set_status("erased", one, signer)

        assert not self.discard(registry, changed)
        assert registry.all() == [changed]

    def test_other_weights_stay(self, registry, signer):
        candidate = add(registry, signer)

        assert not self.discard(registry, candidate, "0" * 64)
        assert registry.all() == [candidate]

    def test_what_somebody_wants_after_all_stays(self, registry, signer):
        candidate = add(registry, signer)

        assert not self.discard(registry, candidate, unwanted=lambda: False)
        assert registry.all() == [candidate]

    def test_who_promotes_it_at_this_very_moment_is_told_that_it_is_gone(self, registry, signer):
        candidate = add(registry, signer)
        with ThreadPoolExecutor() as operators:
            promotions = []

            def promote() -> bool:
                promotions.append(
                    operators.submit(
                        Registrar(registry).set_status, "erased", ModelStatus.SERVING, signer
                    )
                )
                return not wait(promotions, timeout=0.2).done

            assert self.discard(registry, candidate, unwanted=promote)
            with pytest.raises(ModelNotFound):
                promotions[0].result()

        assert registry.survey() == ([], {})


class TestServing:
    def test_a_candidate_is_not_served_until_promoted(self, registry, signer):
        add(registry, signer)
        with pytest.raises(ModelNotServed, match="promote it first"):
            registry.served("erased")

        Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)

        assert registry.served("erased").status is ModelStatus.SERVING

    def test_a_retired_model_is_not_served_and_may_come_back(self, registry, signer):
        add(registry, signer)
        Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)
        Registrar(registry).set_status("erased", ModelStatus.RETIRED, signer)
        with pytest.raises(ModelNotServed):
            registry.served("erased")

        Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)
        registry.served("erased")

    def test_a_candidate_cannot_be_retired(self, registry, signer):
        add(registry, signer)

        with pytest.raises(StatusUnreachable):
            Registrar(registry).set_status("erased", ModelStatus.RETIRED, signer)

    def test_a_model_without_its_last_concept_counts_as_its_base(self, registry, signer):
        """Otherwise taking concepts out would be a way round the setting."""
        bare = add(registry, signer, edit=EDIT.model_copy(update={"concepts": ()}))
        Registrar(registry).set_status(bare.id, ModelStatus.SERVING, signer)

        with pytest.raises(ModelNotServed, match="nothing was erased"):
            registry.served(bare.id)

    def test_an_unerased_base_is_served_only_when_settings_say_so(
        self, registry, signer, tmp_path
    ):
        add(registry, signer, "base", edit=None, status=ModelStatus.SERVING)
        with pytest.raises(ModelNotServed, match="TRCE_SERVE_UNERASED_BASE"):
            registry.served("base")

        open_registry = ModelRegistry(
            tmp_path / "models",
            Verifier.load(tmp_path / "keys"),
            serve_unerased_base=True,
            default_model="base",
        )
        assert open_registry.served(open_registry.resolve("default")).id == "base"


def test_what_an_earlier_version_signed_counts_and_keeps_its_certificate(registry, signer):
    path = registry.path(add(registry, signer).id) / "manifest.json"
    earlier = json.loads(path.read_text())
    for later_field in ("promote_if", "overrides", "signature"):
        del earlier[later_field]
    signature = signer.sign(earlier).model_dump()
    path.write_text(json.dumps(earlier | {"signature": signature}))

    certificate = registry.get("erased").certificate
    changed = Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)
    assert changed.certificate == certificate
    assert registry.get("erased").status is ModelStatus.SERVING


class TestTampering:
    """Each of these is found, and named."""

    def alter(self, registry: ModelRegistry, **changes) -> None:
        path = registry.path("erased") / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_a_changed_status(self, registry, signer):
        add(registry, signer)
        self.alter(registry, status="serving")

        with pytest.raises(UntrustedModel, match="signature does not match"):
            registry.get("erased")
        assert registry.all() == []
        assert "erased" in registry.untrusted()

    def test_a_field_left_out(self, registry, signer):
        add(registry, signer)
        path = registry.path("erased") / "manifest.json"
        told = json.loads(path.read_text())
        del told["promote_if"]
        path.write_text(json.dumps(told))

        with pytest.raises(UntrustedModel, match="signature does not match"):
            registry.get("erased")

    def test_no_signature(self, registry, signer):
        add(registry, signer)
        self.alter(registry, signature=None)

        with pytest.raises(UntrustedModel, match="not signed"):
            registry.get("erased")

    def test_a_strangers_signature(self, registry, signer, tmp_path):
        stranger = Signer.load_or_create(tmp_path / "elsewhere")
        add(registry, signer)
        registry.get("erased").signed(stranger).write(registry.path("erased"))

        with pytest.raises(UntrustedModel, match="not trusted here"):
            registry.get("erased")

    def test_a_manifest_of_another_model(self, registry, signer):
        add(registry, signer)
        add(registry, signer, "other")
        registry.get("other").write(registry.path("erased"))

        with pytest.raises(UntrustedModel, match="that of other"):
            registry.get("erased")

    def test_a_malformed_manifest(self, registry, signer):
        add(registry, signer)
        (registry.path("erased") / "manifest.json").write_text('{"id": 1')

        with pytest.raises(UntrustedModel, match="malformed"):
            registry.get("erased")

    @pytest.mark.parametrize("model_id", ["../keys", "a/b", "", ".", "UPPER", "a" * 200])
    def test_a_name_that_is_no_model_id(self, registry, model_id):
        with pytest.raises(ModelNotFound):
            registry.get(model_id)

    @pytest.mark.parametrize(
        ("tamper", "said"),
        [
            pytest.param(lambda f: f.write_bytes(b"weightz"), "differs", id="flipped bit"),
            pytest.param(lambda f: f.unlink(), "missing", id="missing file"),
            pytest.param(
                lambda f: (f.parent / "extra.bin").write_bytes(b"x"), "not listed", id="extra file"
            ),
            pytest.param(
                lambda f: (f.parent / "link").symlink_to("/etc/hostname"),
                "not a plain file",
                id="symbolic link",
            ),
        ],
    )
    def test_changed_files(self, registry, signer, tamper, said):
        manifest = add(registry, signer)
        tamper(registry.path("erased") / "unet" / "weights.safetensors")

        with pytest.raises(UntrustedModel, match=said):
            manifest.check_files(registry.path("erased"))
        with pytest.raises(UntrustedModel, match=said):
            Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)
        assert registry.get("erased").status is ModelStatus.CANDIDATE

    @pytest.mark.parametrize(
        ("put", "said"),
        [
            pytest.param(os.mkfifo, "not a plain file", id="pipe"),
            pytest.param(
                lambda path: (path.touch(), os.truncate(path, 1 << 40)),
                "over 67108864 bytes",
                id="giant",
            ),
            pytest.param(lambda path: path.symlink_to("/dev/zero"), "symbolic links", id="link"),
        ],
    )
    def test_what_answers_never_or_without_end_is_not_read(self, registry, signer, put, said):
        manifest = add(registry, signer, files={CONFIG: b"{}"})
        path = registry.path("erased") / CONFIG
        path.unlink()
        put(path)

        with pytest.raises(UntrustedModel, match=said):
            signed_file(registry.path("erased"), manifest, CONFIG, manifest.files)


def test_the_content_digest_names_the_weights_and_not_the_status(registry, signer):
    candidate = add(registry, signer)
    serving = Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)

    assert serving.content_digest == candidate.content_digest
    assert add(registry, signer, "b", weights=b"x").content_digest != candidate.content_digest


@pytest.fixture
def durable(monkeypatch) -> set[int]:
    """The inodes of what has been made durable."""
    synced, fsync = set(), os.fsync

    def noting(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    return synced


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in [folder, *folder.rglob("*")]}


class TestLossOfPower:
    """What has a name that counts is on the disk before."""

    def test_a_model_is_on_the_disk_before_it_has_its_name(
        self, registry, signer, durable, monkeypatch
    ):
        rename, lacking = Path.rename, []

        def noting(path: Path, target: Path) -> Path:
            lacking.append(inodes(path) - durable)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", noting)
        add(registry, signer)

        assert lacking == [set()]

    def test_so_is_one_from_another_file_system(self, registry, signer, durable, monkeypatch):
        rename, lacking = Path.rename, []

        def from_elsewhere(path: Path, target: Path) -> Path:
            if path.name.startswith("erased."):
                raise OSError(errno.EXDEV, "another file system")
            lacking.append(inodes(path) - durable)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", from_elsewhere)
        add(registry, signer)

        assert lacking == [set()]

    def test_so_are_the_folders_of_the_trainer(self, tmp_path, durable):
        with new_folder(tmp_path / "model") as folder:
            (folder / "unet").mkdir()
            (folder / "unet" / "weights.safetensors").write_bytes(b"weights")

        assert inodes(tmp_path / "model") <= durable


class TestModelsBeingMade:
    def test_a_folder_is_nobody_elses_whatever_its_name(self, registry):
        first, second = registry.making.begin("job-1"), registry.making.begin("job-1")
        (first / "half").write_text("of a model")

        registry.making.clear(second)

        assert (first / "half").exists()

    def test_what_is_over_is_swept_away_and_the_rest_is_kept(self, registry):
        over, going_on = registry.making.begin("job-1"), registry.making.begin("job-2")

        registry.making.sweep(lambda name: name == "job-1")

        assert not over.exists()
        assert going_on.exists()

    def test_one_from_another_file_system_becomes_visible_whole(
        self, registry, signer, monkeypatch
    ):
        """As where models are on a disk of their own."""
        rename, seen = Path.rename, []

        def rename_here(path: Path, target: Path) -> Path:
            if path.parent.name == ".incoming" and path.name.startswith("erased."):
                raise OSError(errno.EXDEV, "another file system")
            seen.append((registry.survey(), path))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_here)
        made = add(registry, signer)
        monkeypatch.undo()

        made.check_files(registry.path("erased"))
        assert [found for found, _ in seen] == [([], {})]
        assert not list((registry.path(".incoming")).iterdir())

    def test_a_disk_that_is_full_says_so(self, registry, signer, monkeypatch):
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "no space")

        monkeypatch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="no space"):
            add(registry, signer)
        monkeypatch.undo()
        assert registry.survey() == ([], {})

    def test_they_can_be_made_out_of_reach_of_who_writes_models(self, tmp_path, signer):
        registry = ModelRegistry(
            tmp_path / "models",
            Verifier.load(tmp_path / "keys"),
            serve_unerased_base=False,
            default_model="erased",
            making=tmp_path / "making",
        )

        assert registry.making.begin("erased").parent == tmp_path / "making"
        assert add(registry, signer) == registry.get("erased")
        assert not (tmp_path / "models" / ".incoming").exists()
