"""A worker refuses what does not check out, says so, and goes on drawing what does."""

import json
import os
import shutil

import pytest
import torch

from core.digests import sha256
from core.errors import ModelNotServed, UntrustedModel
from core.jobs import JobState
from core.key_folder import KeyFolder
from core.manifests import ModelStatus
from core.refusals import Refusals
from core.registrar import Registrar
from core.signing import Signer
from core.specs import GenerationSpec
from diffusion.erasure import FILENAME
from worker.refusing import RefusalBoard
from worker.room import Room
from worker.shelf import Shelf

MODEL = "changed"


@pytest.fixture
def shelf(telling_shelf) -> Shelf:
    return telling_shelf


@pytest.fixture
def erased(add_variant):
    """An erased model that is served."""
    add_variant(MODEL, seed=1)
    return MODEL


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def erasure_changed(folder):
    flipped(folder / MODEL / FILENAME)


def erasure_truncated(folder):
    path = folder / MODEL / FILENAME
    path.write_bytes(path.read_bytes()[:-8])


def erasure_of_another_model(folder):
    shutil.copyfile(folder / "other" / FILENAME, folder / MODEL / FILENAME)


def whole_folder_of_another_model(folder):
    shutil.rmtree(folder / MODEL)
    shutil.copytree(folder / "other", folder / MODEL)


def one_more_file(folder):
    (folder / MODEL / "unet.bin").write_bytes(b"more")


def erasure_behind_a_link(folder):
    (folder / MODEL / FILENAME).rename(folder.parent / "elsewhere")
    (folder / MODEL / FILENAME).symlink_to(folder.parent / "elsewhere")


def erasure_is_gone(folder):
    (folder / MODEL / FILENAME).unlink()


def baked_unet_changed(folder):
    """A worker does not load it; whoever exports the model would."""
    (folder / MODEL / "unet" / "config.json").write_text("[]")


def base_is_another(folder):
    """Signed, whole, and not the one that the model was made from."""
    shutil.rmtree(folder / "emoji")
    shutil.copytree(folder / "emoji-2", folder / "emoji")


def base_manifest_edited(folder):
    path = folder / "emoji" / "manifest.json"
    path.write_text(path.read_text().replace('"sd1"', '"sd2"'))


def base_unet_changed(folder):
    flipped(folder / "emoji" / "unet" / "diffusion_pytorch_model.safetensors")


def base_words_changed(folder):
    flipped(folder / "emoji" / "tokenizer" / "tokenizer.json")


def base_classifier_changed(folder):
    """Nobody loads it with the base, and the base is not whole all the same."""
    flipped(folder / "emoji" / "classifier" / "model.safetensors")


@pytest.mark.parametrize(
    "tamper",
    [
        erasure_changed,
        erasure_truncated,
        erasure_of_another_model,
        whole_folder_of_another_model,
        one_more_file,
        erasure_behind_a_link,
        erasure_is_gone,
        baked_unet_changed,
        base_is_another,
        base_manifest_edited,
        base_unet_changed,
        base_words_changed,
        base_classifier_changed,
    ],
    ids=lambda tamper: tamper.__name__.replace("_", " "),
)
def test_a_model_that_was_tampered_with_is_not_loaded_and_its_refusal_is_told(
    erased, add_variant, registry, shelf, refusals, settings, tamper
):
    add_variant("other", seed=2)
    second_base(settings, registry)
    tamper(settings.models_dir)

    with pytest.raises(UntrustedModel):
        shelf.variant(erased).late_check.wait()

    assert list(refusals.all()) == [erased]
    assert refusals.all()[erased].worker == "inference-0@test"


def test_a_file_that_claims_more_than_any_erasure_has_is_refused_before_it_is_read(
    erased, shelf, settings
):
    """A sparse file takes no disk; as much memory as it claims to fill nobody has."""
    with (settings.models_dir / erased / FILENAME).open("r+b") as file:
        file.truncate(1 << 42)

    with pytest.raises(UntrustedModel, match=f"has {1 << 42} bytes, and no erasure of emoji"):
        shelf.variant(erased)


class TestWhatFits:
    """It is computed before anything is loaded, from configs as they were signed."""

    @pytest.fixture
    def shelf(self, registry, refusals, tmp_path) -> Shelf:
        cpu, dtype = torch.device("cpu"), torch.float32
        room = Room(cpu, dtype, lambda: 120 << 20, tmp_path / "footprints")
        board = RefusalBoard(refusals, "inference-0@test")
        return Shelf(registry, device=cpu, dtype=dtype, room=room, refusals=board)

    @pytest.fixture
    def spec(self) -> GenerationSpec:
        return GenerationSpec(prompt="a cat", model="emoji", width=64, height=64)

    @pytest.mark.parametrize("name", ["unet/config.json", "vae/config.json"])
    def test_a_pipe_is_refused_and_waited_for_by_nobody(
        self, shelf, spec, refusals, settings, name
    ):
        (settings.models_dir / "emoji" / name).unlink()
        os.mkfifo(settings.models_dir / "emoji" / name)

        with pytest.raises(UntrustedModel, match="not a plain file"):
            shelf.variant("emoji", spec)

        assert list(refusals.all()) == ["emoji"]

    def test_a_config_that_says_too_much_is_refused_and_forgotten_once_it_is_put_right(
        self, shelf, spec, refusals, settings
    ):
        path = settings.models_dir / "emoji" / "unet" / "config.json"
        good = path.read_bytes()
        wide = [64_000 for _ in json.loads(good)["block_out_channels"]]
        path.write_text(json.dumps(json.loads(good) | {"block_out_channels": wide}))

        with pytest.raises(UntrustedModel, match=r"config\.json differs from its manifest"):
            shelf.variant("emoji", spec)
        assert list(refusals.all()) == ["emoji"]
        path.write_bytes(good)

        assert shelf.variant("emoji", spec).model_id == "emoji"

    def test_a_header_that_says_too_much_changes_nothing_of_what_fits(
        self, shelf, spec, refusals, settings
    ):
        """A sparse file takes no disk."""
        path = settings.models_dir / "emoji" / "text_encoder" / "model.safetensors"
        good, numbers = path.read_bytes(), 1 << 25
        told = {"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}
        header = json.dumps(told).encode()
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 4 * numbers)

        with pytest.raises(UntrustedModel, match="text_encoder"):
            shelf.variant("emoji", spec)
        assert list(refusals.all()) == ["emoji"]
        path.write_bytes(good)

        assert shelf.variant("emoji", spec).model_id == "emoji"


def second_base(settings, registry) -> None:
    """Another base, signed under the name of the first."""
    folder = registry.making.begin("emoji-2")
    shutil.copytree(registry.path("emoji"), folder, dirs_exist_ok=True)
    (folder / "README.md").write_text("another")
    first = registry.get("emoji")
    files = first.files | {"README.md": sha256(folder / "README.md")}
    other = first.model_copy(update={"files": files, "blake3": None}).signed(
        Signer.load(settings.keys_dir)
    )
    other.write(folder)
    folder.rename(registry.path("emoji-2"))


class TestWhileItRuns:
    """Loaded is not trusted for ever: each job asks again."""

    def test_what_is_retired_draws_no_more(self, erased, shelf, registry, settings):
        shelf.variant(erased)
        Registrar(registry).set_status(erased, ModelStatus.RETIRED, Signer.load(settings.keys_dir))

        with pytest.raises(ModelNotServed):
            shelf.variant(erased)

    def test_what_a_revoked_key_signed_draws_no_more(self, erased, shelf, settings):
        shelf.variant(erased)
        keys, old = KeyFolder(settings.keys_dir), Signer.load(settings.keys_dir).key_id
        keys.rotate()
        keys.revoke(old)

        with pytest.raises(UntrustedModel, match="was revoked"):
            shelf.variant(erased)

    def test_what_stands_on_a_base_that_is_trusted_no_more_draws_no_more(
        self, erased, shelf, settings
    ):
        shelf.variant(erased)
        base_manifest_edited(settings.models_dir)

        with pytest.raises(UntrustedModel):
            shelf.variant(erased)

    def test_once_it_is_well_again_it_is_served_and_no_longer_called_refused(
        self, erased, shelf, refusals, settings
    ):
        path = settings.models_dir / erased / FILENAME
        good = path.read_bytes()
        erasure_changed(settings.models_dir)
        with pytest.raises(UntrustedModel):
            shelf.variant(erased)
        path.write_bytes(good)

        shelf.variant(erased).late_check.wait()
        assert refusals.all() == {}


class TestTheEndOfARefusal:
    """Whoever serves a model ends it, though the model was loaded long ago."""

    @pytest.fixture
    def now(self):
        return [1000.0]

    @pytest.fixture
    def shelf(self, registry, redis_client, now) -> Shelf:
        refusals = Refusals(redis_client, now=lambda: now[0])
        board = RefusalBoard(refusals, "inference-0@test", now=lambda: now[0])
        shelf = Shelf(registry, device=torch.device("cpu"), dtype=torch.float32, refusals=board)
        shelf.variant("emoji").late_check.wait()
        return shelf

    def test_a_manifest_that_is_put_right_again_ends_it_at_once(self, shelf, refusals, settings):
        path = settings.models_dir / "emoji" / "manifest.json"
        good = path.read_bytes()
        base_manifest_edited(settings.models_dir)
        with pytest.raises(UntrustedModel):
            shelf.variant("emoji")
        assert list(refusals.all()) == ["emoji"]
        path.write_bytes(good)

        shelf.variant("emoji")

        assert refusals.all() == {}

    def test_that_of_another_worker_ends_when_it_was_not_repeated_for_a_while(
        self, shelf, redis_client, refusals, now
    ):
        """A host whose copy alone is spoilt is told of as long as jobs meet it."""
        Refusals(redis_client, now=lambda: now[0]).note("emoji", "why", worker="inference-0@far")
        now[0] += 50
        shelf.variant("emoji")
        assert list(refusals.all()) == ["emoji"]

        now[0] += 50
        shelf.variant("emoji")

        assert refusals.all() == {}


def test_jobs_of_good_models_go_on_and_the_other_one_fails_with_the_reason(
    erased, shelf, submit, jobs, make_batcher, settings
):
    erasure_changed(settings.models_dir)
    good, bad = submit("a cat"), submit("a cat", model=erased)
    make_batcher(shelf=shelf).drain()

    assert jobs.get(good).state is JobState.SUCCEEDED
    assert jobs.get(bad).state is JobState.FAILED
    assert f"{FILENAME} differs from its manifest" in jobs.get(bad).reason


def test_an_outage_does_not_keep_a_worker_from_refusing(erased, shelf, settings, broker):
    erasure_changed(settings.models_dir)
    broker.kill()
    try:
        with pytest.raises(UntrustedModel):
            shelf.variant(erased)
    finally:
        broker.start()
