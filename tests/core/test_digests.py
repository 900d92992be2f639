"""A model's files are held against BLAKE3, or SHA-256 where its manifest knows no other."""

import hashlib

import blake3
import pytest

from core.digests import Algorithm
from core.errors import UntrustedModel
from core.making import describe
from core.manifests import Drawing, Manifest
from core.model_files import ModelFiles

NAME = "unet/weights.safetensors"
DATA = bytes(range(256)) * 5000
NOT_IT = "0" * 64


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / NAME).write_bytes(DATA)
    (tmp_path / "config.json").write_bytes(b"{}")
    return tmp_path


@pytest.fixture
def manifest(folder) -> Manifest:
    drawing = Drawing(native_px=64, multiple_px=16, max_px=128)
    return describe(folder, model_id="m", family="sd1", drawing=drawing, code_version="1")


@pytest.fixture
def earlier(manifest) -> Manifest:
    """As a version wrote it that knew SHA-256 alone."""
    fields = manifest.model_dump(mode="json", exclude={"blake3"})
    return Manifest.model_validate(fields)


def read(folder, manifest):
    """What a worker has of a file, once it was checked."""
    buffer = bytearray(len(DATA))
    with ModelFiles(folder, manifest).stream(NAME) as stream:
        stream.fill(memoryview(buffer))
    return bytes(buffer)


def with_digest(manifest, listed, digest=NOT_IT):
    return manifest.model_copy(update={listed: getattr(manifest, listed) | {NAME: digest}})


def test_every_file_is_listed_by_both(manifest):
    assert manifest.files[NAME] == hashlib.sha256(DATA).hexdigest()
    assert manifest.blake3[NAME] == blake3.blake3(DATA).hexdigest()
    assert set(manifest.files) == set(manifest.blake3) == {NAME, "config.json"}


@pytest.mark.parametrize("version", ["manifest", "earlier"])
def test_whole_files_are_read_and_changed_ones_refused(folder, version, request):
    listed = request.getfixturevalue(version)
    listed.check_files(folder)
    assert read(folder, listed) == DATA

    (folder / NAME).write_bytes(DATA[:-1] + b"\0")
    for reading in (read, lambda folder, listed: listed.check_files(folder)):
        with pytest.raises(UntrustedModel, match="differs from its manifest"):
            reading(folder, listed)


def test_what_is_read_in_slices_is_the_whole(folder, manifest, monkeypatch):
    monkeypatch.setattr("core.checked_stream.SLICE_BYTES", 1000)
    assert read(folder, manifest) == DATA

    (folder / NAME).write_bytes(DATA + b"more")
    with pytest.raises(UntrustedModel, match="differs from its manifest"):
        read(folder, manifest)
    (folder / NAME).write_bytes(DATA[:-1000])
    with pytest.raises(UntrustedModel, match="ends too early"):
        read(folder, manifest)


def test_which_of_them_is_checked(folder, manifest, earlier):
    assert manifest.checked_by == (Algorithm.BLAKE3, manifest.blake3)
    assert earlier.checked_by == (Algorithm.SHA256, manifest.files)
    assert read(folder, with_digest(manifest, "files")) == DATA
    for changed in (with_digest(manifest, "blake3"), with_digest(earlier, "files")):
        with pytest.raises(UntrustedModel, match=NAME):
            read(folder, changed)
        with pytest.raises(UntrustedModel, match=NAME):
            changed.check_files(folder)


def test_a_file_that_is_read_in_part_is_digested_whole(folder, manifest):
    (folder / NAME).write_bytes(DATA[:-1] + b"\0")
    with (
        pytest.raises(UntrustedModel, match=NAME),
        ModelFiles(folder, manifest).stream(NAME) as stream,
    ):
        assert stream.read(8) == DATA[:8]


@pytest.mark.parametrize(
    "listed", [{}, {NAME: NOT_IT}, {NAME: NOT_IT, "config.json": NOT_IT, "more": NOT_IT}]
)
def test_a_manifest_that_lists_other_files_by_one_than_by_the_other_is_none(manifest, listed):
    document = manifest.model_copy(update={"blake3": listed}).model_dump_json().encode()
    with pytest.raises(UntrustedModel, match="blake3 must list the same files"):
        Manifest.parse(document, "m")


def test_what_a_model_is_called_by_is_the_same_as_in_earlier_versions(manifest, earlier):
    assert manifest.content_digest == earlier.content_digest


def test_without_a_manifest_nothing_is_digested(folder, monkeypatch):
    monkeypatch.setattr("core.model_files.hasher", None)
    assert read(folder, None) == DATA
