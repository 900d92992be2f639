"""What comes from elsewhere is believed in nothing: it is imported whole, or refused by name."""

import errno
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from core.errors import AppError, ModelUnsupported, NotEnoughRoom, UntrustedModel
from core.importing import import_base
from core.registry import ModelRegistry
from core.signing import Signer, Verifier
from tests.tiny_model import make_model

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def source(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "source")


@pytest.fixture
def signer(tmp_path) -> Signer:
    return Signer.load_or_create(tmp_path / "keys")


@pytest.fixture
def registry(tmp_path, signer) -> ModelRegistry:
    return ModelRegistry(
        tmp_path / "models",
        Verifier.load(tmp_path / "keys"),
        serve_unerased_base=True,
        default_model="tiny",
    )


def pickle_as_safetensors(source):
    (source / UNET).write_bytes(pickle.dumps({"weights": [1.0] * 1000}))


def archive_as_safetensors(source):
    with zipfile.ZipFile(source / UNET, "w") as file:
        file.writestr("../../evil.py", "print('here')")


def pickles_alone(source):
    (source / UNET).rename(source / "unet/diffusion_pytorch_model.bin")


def truncated(source):
    os.truncate(source / UNET, (source / UNET).stat().st_size - 1)


def empty_weights(source):
    (source / UNET).write_bytes(b"")


def huge_header(source):
    with (source / UNET).open("r+b") as file:
        file.write((1 << 40).to_bytes(8, "little"))


def header_as_large_as_the_file(source):
    with (source / UNET).open("wb") as file:
        file.write((1 << 33).to_bytes(8, "little"))
        file.truncate((1 << 33) + 8)


def linked_file(source):
    (source / UNET).rename(source.parent / "elsewhere")
    (source / UNET).symlink_to(source.parent / "elsewhere")


def link_to_a_secret(source):
    (source / "README.md").symlink_to("/etc/passwd")


def linked_folder(source):
    (source / "unet").rename(source.parent / "elsewhere")
    (source / "unet").symlink_to(source.parent / "elsewhere")


def link_in_a_circle(source):
    (source / "again").symlink_to(source)


def pipe(source):
    os.mkfifo(source / "README.md")


def name_with_a_line_break(source):
    (source / "a\nb.json").write_text("{}")


def name_that_is_no_text(source):
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff.json"))).write_text("{}")


def shard_outside(source):
    tensors = load_file(source / UNET)
    save_file(tensors, source.parent / "outside.safetensors")
    (source / UNET).unlink()
    index = dict.fromkeys(tensors, "../../outside.safetensors")
    (source / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": ' + str(index).replace("'", '"') + "}"
    )


def shard_missing(source):
    (source / UNET).unlink()
    (source / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "diffusion_pytorch_model-1.safetensors"}}'
    )


def json_that_is_none(source):
    (source / "unet/config.json").write_text("{")


def json_nested_deeply(source):
    (source / "tokenizer/tokenizer_config.json").write_text("[" * 100_000)


def index_that_is_a_folder(source):
    (source / "model_index.json").unlink()
    (source / "model_index.json").mkdir()


def thousands_of_files(source):
    for number in range(2001):
        (source / f"{number}.txt").touch()


def without_a_text_encoder(source):
    shutil.rmtree(source / "text_encoder")


def scheduler_of_a_flow(source):
    (source / "scheduler/scheduler_config.json").write_text(
        '{"_class_name": "FlowMatchEulerDiscreteScheduler"}'
    )


def without_a_scheduler(source):
    (source / "scheduler/scheduler_config.json").unlink()


@pytest.mark.parametrize(
    "tamper",
    [
        pickle_as_safetensors,
        archive_as_safetensors,
        pickles_alone,
        truncated,
        empty_weights,
        huge_header,
        header_as_large_as_the_file,
        linked_file,
        link_to_a_secret,
        linked_folder,
        link_in_a_circle,
        pipe,
        name_with_a_line_break,
        name_that_is_no_text,
        shard_outside,
        shard_missing,
        json_that_is_none,
        json_nested_deeply,
        index_that_is_a_folder,
        thousands_of_files,
        without_a_text_encoder,
        scheduler_of_a_flow,
        without_a_scheduler,
    ],
    ids=lambda tamper: tamper.__name__.replace("_", " "),
)
def test_it_is_refused_and_leaves_nothing_behind(source, registry, signer, tamper):
    tamper(source)

    with pytest.raises((ModelUnsupported, UntrustedModel)):
        import_base(source, "tiny", registry, signer)

    assert registry.survey() == ([], {})
    assert not list(registry.path(".incoming").glob("*"))


def test_a_model_as_it_should_be_is_imported_without_what_is_none_of_it(source, registry, signer):
    (source / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(1))
    (source / "convert.py").write_text("print('here')")
    (source / "manifest.json").write_text("{}")
    (source / ".cache/huggingface").mkdir(parents=True)
    (source / ".cache/huggingface/x.json").write_text("{}")

    manifest = import_base(source, "tiny", registry, signer)

    manifest.check_files(registry.path("tiny"))
    assert {Path(name).suffix for name in manifest.files} <= {".json", ".safetensors"}
    assert not [name for name in manifest.files if "cache" in name]
    assert not list(registry.path(".incoming").glob("*"))


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, NotEnoughRoom), (errno.EIO, ModelUnsupported)]
)
def test_a_disk_that_fails_half_way_leaves_nothing_behind(
    source, registry, signer, monkeypatch, number, error
):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(error, match="source"):
        import_base(source, "tiny", registry, signer)

    assert registry.survey() == ([], {})
    assert not list(registry.path(".incoming").glob("*"))


@pytest.mark.parametrize("name", ["../tiny", "a/b", "", "..", ".incoming", "Tiny", "a" * 300])
def test_an_id_that_leads_elsewhere_is_refused(source, registry, signer, name):
    with pytest.raises(AppError, match="no model id"):
        import_base(source, name, registry, signer)


def test_two_imports_at_once_do_not_spoil_each_other(source, registry, signer, monkeypatch):
    copy, others = shutil.copyfileobj, []

    def copy_and_import(*files: object) -> None:
        if not others:
            others.append("begun")
            others.append(import_base(source, "tiny", registry, signer))
        copy(*files)

    monkeypatch.setattr(shutil, "copyfileobj", copy_and_import)
    manifest = import_base(source, "tiny", registry, signer)

    assert manifest == others[1]
    manifest.check_files(registry.path("tiny"))


class TestOneFile:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            pytest.param("model.ckpt", pickle.dumps(1), id="pickle"),
            pytest.param("model.safetensors", pickle.dumps([1] * 100), id="pickle in disguise"),
            pytest.param("model.safetensors", b"", id="empty"),
            pytest.param(
                "model.safetensors", (1 << 50).to_bytes(8, "little") + b"{}", id="huge header"
            ),
        ],
    )
    def test_what_is_no_safetensors_file_is_refused(
        self, tmp_path, source, registry, signer, name, data
    ):
        from cli.importing import import_file

        (tmp_path / name).write_bytes(data)
        with pytest.raises(UntrustedModel, match=name):
            import_file(
                tmp_path / name, "tiny", registry, signer, like=str(source), prediction=None
            )

        assert not list(registry.path(".incoming").glob("*"))
