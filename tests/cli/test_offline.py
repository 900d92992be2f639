"""`trce erase` and `trce models merge` in one process: no service, no broker."""

import contextlib
import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import app
from cli.stack.borrowed import borrowed_redis
from core.audit import AuditTrail
from core.errors import Invalid
from core.importing import import_base
from core.installation import open_registry
from core.manifests import Manifest, ModelStatus
from core.settings import Settings
from core.signing import Signer, Verifier
from core.specs import SteeringOptions
from tests.tiny_model import make_model
from trainer.__main__ import _parser

SPEC = {
    "base_model": "tiny",
    "concepts": [{"name": "axe", "replacement": "flower"}],
    "textual": {"preserve": 0.02},
}


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Settings:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    signer = Signer.load_or_create(settings.keys_dir)
    source = make_model(tmp_path_factory.mktemp("source") / "tiny")
    import_base(source, "tiny", open_registry(settings), signer)
    return settings


def trce(*words, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout.strip() if code == 0 else str(result.exception)


@pytest.fixture
def spec(tmp_path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return path


def erased(installation, model_id: str) -> list[str]:
    manifest = open_registry(installation).get(model_id)
    assert manifest.status is ModelStatus.CANDIDATE
    manifest.check_files(installation.models_dir / model_id)
    return [concept.name for concept in manifest.edit.concepts]


def test_models_are_erased_merged_added_to_and_taken_from_on_a_data_folder(
    installation, spec, tmp_path
):
    data = ("--data-dir", installation.data_dir)
    first = trce("erase", spec, *data)
    assert erased(installation, first) == ["axe"]

    pistol = SPEC | {"concepts": [{"name": "pistol", "replacement": "dog"}]}
    other = tmp_path / "pistol.json"
    other.write_text(yaml.safe_dump(pistol))
    second = trce("erase", other, *data)
    both = trce("models", "merge", first, second, *data, "--new-id", "both", "--strength", "0.7")
    assert erased(installation, both) == ["axe", "pistol"]

    del pistol["textual"]
    other.write_text(yaml.safe_dump(pistol))
    added = trce("models", "add", first, other, *data)
    assert erased(installation, added) == ["axe", "pistol"]
    assert erased(installation, trce("models", "remove", added, "axe", *data)) == ["pistol"]
    assert "already" in trce("models", "add", added, other, *data, code=1)
    again = trce("models", "add", added, other, *data, "--instead-of", "pistol")
    assert erased(installation, again) == ["axe", "pistol"]


STEERING = {
    "steps": 3,
    "batch": 1,
    "anchors": 1,
    "trajectories": 3,
    "anchor_trajectories": 1,
    "kept_trajectories": 1,
    "trajectory_steps": 2,
    "learning_rate": 1e-4,
}


def test_models_that_stage_2_trained_are_derived_from_with_steering(installation, tmp_path):
    data, anew = ("--data-dir", installation.data_dir), ("--steering", json.dumps(STEERING))
    pistol = {"name": "pistol", "replacement": "dog"}
    both, other = tmp_path / "both.yaml", tmp_path / "sword.yaml"
    told = SPEC | {"concepts": [*SPEC["concepts"], pistol], "steering": STEERING}
    both.write_text(yaml.safe_dump(told))
    other.write_text(yaml.safe_dump({"concepts": [pistol | {"name": "sword"}]}))
    trained = trce("erase", both, *data)

    for words in (["merge", trained], ["add", trained, other], ["remove", trained, "axe"]):
        assert "--steering" in trce("models", *words, *data, code=1)
        made = trce("models", *words, *data, *anew)
        edit = open_registry(installation).get(made).edit
        assert edit.steering == SteeringOptions(**STEERING)
    assert erased(installation, made) == ["pistol"]
    bare = trce("models", "remove", made, "pistol", *data)
    assert erased(installation, bare) == []
    weights = Path("unet/diffusion_pytorch_model.safetensors")
    folders = [installation.models_dir / name for name in ("tiny", bare)]
    assert len({(folder / weights).read_bytes() for folder in folders}) == 1


@pytest.mark.parametrize("given", ["Both!", "../both", ""])
def test_an_id_that_cannot_be_is_told_before_the_run(installation, spec, given, monkeypatch):
    data = ("--data-dir", installation.data_dir)
    model = trce("erase", spec, *data)
    monkeypatch.setattr("trainer.erase.erase", lambda *a, **k: pytest.fail("it began"))
    merge = ("models", "merge", model, *data, "--new-id", given)
    assert f"{given!r} is no model id" in trce(*merge, code=1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("published-sd2", "published-sd1"),
        ("{", "--steering is no JSON"),
        ('{"steps": 0}', "steering.steps"),
    ],
)
def test_settings_of_stage_2_that_cannot_be_are_told(installation, spec, given, says):
    data = ("--data-dir", installation.data_dir)
    model = trce("erase", spec, *data)
    assert says in trce("models", "merge", model, "--steering", given, *data, code=1)


def test_a_model_made_on_a_data_folder_can_be_served_at_once(installation, spec):
    model = trce("erase", spec, "--data-dir", installation.data_dir, "--promote")
    assert open_registry(installation).get(model).status is ModelStatus.SERVING
    with borrowed_redis(installation) as client:
        signer, verifier = Signer.load(installation.keys_dir), Verifier.load(installation.keys_dir)
        (entry,) = AuditTrail(client, signer, verifier).page(limit=10)
    assert (entry.action, entry.subject) == ("model.promotion", model)
    assert entry.actor


def test_a_promotion_that_nobody_can_write_down_is_not_done(installation, spec, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    why = trce("erase", spec, "--data-dir", installation.data_dir, "--promote", code=1)

    assert "redis://127.0.0.1:1/0 does not answer" in why
    newest = max(open_registry(installation).all(), key=lambda one: one.created_at)
    assert newest.status is ModelStatus.CANDIDATE


def test_a_folder_of_ones_own_cannot_be_promoted(installation, spec, tmp_path):
    words = ("--out", tmp_path / "out", "--base", installation.models_dir / "tiny")
    assert "--promote" in trce("erase", spec, *words, "--promote", code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--default"], ["--default", "--promote", "--data-dir", "x"]])
def test_default_needs_a_promotion_by_a_service(spec, words):
    assert "--default goes with --promote" in trce("erase", spec, *words, code=1)


def test_a_refusal_leaves_the_registry_as_it_was(installation, spec, model):
    before = open_registry(installation).all()
    data = ("--data-dir", installation.data_dir)
    assert "base model" in trce("models", "merge", "tiny", *data, code=1)
    erased = ("erase", spec, *data, "--base-model", model)
    assert f"{model} is an erased model" in trce(*erased, code=1)
    assert "no model" in trce("models", "remove", "nothing", "axe", *data, code=1)
    assert open_registry(installation).all() == before
    assert not list(installation.making_dir.iterdir())


def test_a_folder_is_made_without_any_installation(installation, spec, tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("a kiln\n\na potter at work\n")
    words = ("--base", installation.models_dir / "tiny", "--captions", captions)
    assert trce("erase", spec, "--out", tmp_path / "no-axes", *words) == "no-axes"

    manifest = Manifest.read(tmp_path / "no-axes")
    manifest.check_files(tmp_path / "no-axes")
    assert manifest.edit.textual.captions == ("a kiln", "a potter at work")


@pytest.mark.parametrize("named", [None, "mine"])
def test_a_base_that_nobody_named_is_called_as_its_folder(tmp_path, named):
    base = make_model(tmp_path / "Some SD 1.5")
    spec = tmp_path / "spec.yaml"
    fields = {name: value for name, value in SPEC.items() if name != "base_model"}
    spec.write_text(yaml.safe_dump(fields | ({"base_model": named} if named else {})))
    trce("erase", spec, "--out", tmp_path / "no-axes", "--base", base)

    assert Manifest.read(tmp_path / "no-axes").edit.base_model == (named or "some-sd-1.5")
    assert f"`{named or 'some-sd-1.5'}`" in (tmp_path / "no-axes/README.md").read_text()


def test_captions_are_read_once_by_one_user(installation, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    trce("erase", spec, "--out", tmp_path / "no-axes", "--base", installation.models_dir / "tiny")

    assert list((tmp_path / "own" / "trce").glob("*.safetensors"))


def test_a_folder_takes_over_what_folders_named_with_merge_erased(installation, spec, tmp_path):
    base = ("--base", installation.models_dir / "tiny")
    trce("erase", spec, "--out", tmp_path / "no-axes", *base)
    spec.write_text(yaml.safe_dump({"base_model": "tiny", "merge": ["no-axes"]}))
    out = ("--out", tmp_path / "again", *base)
    assert "--merge FOLDER" in trce("erase", spec, *out, code=1)
    trce("erase", spec, *out, "--merge", tmp_path / "no-axes")

    assert Manifest.read(tmp_path / "again").edit.merged == ("no-axes",)


def test_an_erasure_in_this_process_runs_as_its_flags_say(
    installation, spec, tmp_path, monkeypatch
):
    given = []

    def erase(*arguments, **options):
        given.append(options | {"threads": torch.get_num_threads()})
        raise Invalid("that is enough")

    monkeypatch.setattr("trainer.erase.erase", erase)
    before = torch.get_num_threads()
    flags = ("--work", tmp_path / "work", "--threads", str(before + 1), "--processes", "2")
    places = [
        ("--data-dir", installation.data_dir),
        ("--out", tmp_path / "out", "--base", installation.models_dir / "tiny"),
    ]
    try:
        for place in places:
            trce("erase", spec, *place, *flags, code=1)
    finally:
        torch.set_num_threads(before)

    assert [(one["work"], one["threads"], one["processes"]) for one in given] == [
        (tmp_path / "work", before + 1, 2)
    ] * 2
    assert "--out or --data-dir" in trce("erase", spec, *flags, code=1)


def test_both_ways_to_erase_in_ones_own_process_have_the_same_flags():
    """But for what a program that starts an erasure needs."""
    for_programs = {"--progress", "--samples", "--model-id", "--base-manifest"}
    own = {flag for one in _parser()._actions for flag in one.option_strings if flag != "-h"}
    (erase,) = (one for one in get_command(app).commands.values() if one.name == "erase")
    flags = {flag for one in erase.params for flag in one.opts} | {"--help"}

    assert own - for_programs <= flags


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 4 KiB, which ends writing as a full disk does.

    Around commands alone: pytest's own output may be a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def model(installation, spec) -> str:
    return trce("erase", spec, "--data-dir", installation.data_dir)


def test_a_full_disk_is_told_and_nothing_half_written_stays(installation, spec, model, tmp_path):
    data = ("--data-dir", installation.data_dir)
    base = ("--base", installation.models_dir / "tiny")
    for words in (
        ("erase", spec, *data),
        ("erase", spec, "--out", tmp_path / "out", *base),
        ("export", model, *data, "--format", "single-file", "--out", tmp_path / "w.safetensors"),
        ("export", model, *data, "--format", "lora", "--out", tmp_path / "l.safetensors"),
    ):
        with full_disk():
            told = trce(*words, code=1)
        assert "no room left" in told, words
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
    assert not list(installation.making_dir.iterdir())


def test_sigterm_takes_back_what_was_written(installation, spec, tmp_path, monkeypatch):
    """The signal comes when the folder is half full: every file but the UNet is there."""
    written = []

    def interrupted(base, erasure, folder):
        written.extend(path.name for path in folder.parent.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("trainer.erase.write_unet", interrupted)
    base = ("--base", installation.models_dir / "tiny")
    places = (("--out", tmp_path / "out", *base), ("--data-dir", installation.data_dir))
    kept = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("it killed the process"))
    try:
        for place in places:
            words = [str(word) for word in ("erase", spec, *place)]
            assert CliRunner().invoke(app, words).exit_code == 143
    finally:
        signal.signal(signal.SIGTERM, kept)

    assert written.count("erasure.safetensors") == written.count("statistics.safetensors") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
    assert not list(installation.making_dir.iterdir())


def test_captions_that_cannot_be_read_are_named(installation, spec, tmp_path):
    words = ("--base", installation.models_dir / "tiny", "--captions")
    for content in (None, "", "x" * 301, "a kiln\n" * 20_001):
        captions = tmp_path / "captions.txt"
        if content is not None:
            captions.write_text(content)
        message = trce("erase", spec, "--out", tmp_path / "out", *words, captions, code=1)
        assert "captions" in message
        assert not (tmp_path / "out").exists()


def test_a_model_is_exported_and_comes_back_from_one_file(installation, spec, tmp_path):
    data = ("--data-dir", installation.data_dir)
    model = trce("erase", spec, *data)
    words = ("models", "export", model, *data, "--format")

    trce(*words, "diffusers", "--out", tmp_path / "folder")
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"unet", "README.md"}
    told = trce(*words, "lora", "--out", tmp_path / "lora.safetensors")
    assert "rank" in told
    assert "error" in told
    trce(*words, "single-file", "--out", tmp_path / "whole.safetensors")

    whole = (tmp_path / "whole.safetensors", "--id", "again")
    assert "--like" in trce("models", "import", *whole, *data, code=1)
    trce("models", "import", *whole, "--like", "tiny", *data)
    again = open_registry(installation).get("again")
    again.check_files(installation.models_dir / "again")
    assert again.kind == "base"

    from_file = ("--base", tmp_path / "whole.safetensors", "--out", tmp_path / "out")
    assert "--like" in trce("erase", spec, *from_file, code=1)
    trce("erase", spec, *from_file, "--like", installation.models_dir / "tiny")
    assert Manifest.read(tmp_path / "out").kind == "erased"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"folder", "lora.safetensors", "whole.safetensors", "out", "spec.yaml"}


def test_an_export_that_is_refused_writes_nothing(installation, spec, tmp_path):
    data = ("--data-dir", installation.data_dir)
    words = ("export", *data, "--format")
    assert "base model" in trce(*words, "diffusers", "tiny", "--out", tmp_path / "a", code=1)
    model = trce("erase", spec, *data)
    assert ".safetensors" in trce(*words, "lora", model, "--out", tmp_path / "b", code=1)
    assert "exists" in trce(*words, "lora", model, "--out", spec, code=1)
    (installation.models_dir / model / "erasure.safetensors").write_bytes(b"changed")
    out = ("--out", tmp_path / "c.safetensors")
    assert "differs" in trce(*words, "lora", model, *out, code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
