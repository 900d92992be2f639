"""One bad folder is refused and named, and hides none of the good ones."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import model_folder
from core.errors import ModelNotFound, UntrustedModel
from tests.models_on_disk import ModelsOnDisk


@pytest.fixture
def models(tmp_path: Path) -> ModelsOnDisk:
    made = ModelsOnDisk(tmp_path)
    made.add("good")
    made.add("bad")
    return made


def manifest_is_a_folder(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def manifest_is_a_pipe(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def manifest_is_a_link(folder: Path) -> None:
    kept = folder.parent.parent / "kept.json"
    (folder / "manifest.json").rename(kept)
    (folder / "manifest.json").symlink_to(kept)


def manifest_is_closed(folder: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (folder / "manifest.json").chmod(0)


def manifest_is_huge(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)


def manifest_is_gone(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def manifest_is_empty(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"")


def manifest_is_no_text(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(os.urandom(64))


def manifest_is_nested_deeply(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 100_000)


def manifest_holds_no_number(folder: Path) -> None:
    path = folder / "manifest.json"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(
            '  "created_at": NaN,' if line.strip().startswith('"created_at"') else line
            for line in lines
        )
    )


def folder_is_a_link(folder: Path) -> None:
    elsewhere = folder.parent.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def folder_is_a_broken_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def folder_is_a_link_to_a_good_one(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("good")


@pytest.mark.parametrize(
    "tamper",
    [
        manifest_is_a_folder,
        manifest_is_a_pipe,
        manifest_is_a_link,
        manifest_is_closed,
        manifest_is_huge,
        manifest_is_gone,
        manifest_is_empty,
        manifest_is_no_text,
        manifest_is_nested_deeply,
        manifest_holds_no_number,
        folder_is_a_link,
        folder_is_a_broken_link,
        folder_is_a_link_to_a_good_one,
    ],
    ids=lambda tamper: tamper.__name__.replace("_", " "),
)
def test_a_bad_folder_is_refused_by_name_and_hides_no_other(models, tamper):
    tamper(models.folder / "bad")

    with pytest.raises((UntrustedModel, ModelNotFound)):
        models.registry.get("bad")
    assert [one.id for one in models.registry.all()] == ["good"]
    reasons = models.registry.untrusted()
    assert list(reasons) == ["bad"]
    assert "bad" in reasons["bad"]


def test_a_folder_named_as_no_model_can_be_is_reported(models):
    (models.folder / "Not An Id").mkdir()

    assert list(models.registry.untrusted()) == ["Not An Id"]
    assert {one.id for one in models.registry.all()} == {"good", "bad"}


@pytest.mark.parametrize("name", [".manifest.json.x", ".hidden", "unet/.cache", "manifest.json~"])
def test_a_hidden_file_is_as_unlisted_as_any_other(models, name):
    (models.folder / "bad" / name).write_text("x")

    with pytest.raises(UntrustedModel, match="not listed"):
        models.registry.get("bad").check_files(models.folder / "bad")


def holds_too_much(folder: Path) -> None:
    for number in range(20):
        (folder / f"more-{number}").mkdir()


def is_gone_when_it_is_looked_at(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "tamper",
    [holds_too_much, is_gone_when_it_is_looked_at],
    ids=lambda tamper: tamper.__name__.replace("_", " "),
)
def test_a_folder_that_cannot_be_looked_through_is_refused(models, monkeypatch, tamper):
    monkeypatch.setattr(model_folder, "MAX_ENTRIES", 10)
    bad = models.registry.get("bad")
    tamper(models.folder / "bad")

    with pytest.raises(UntrustedModel, match="bad"):
        bad.check_files(models.folder / "bad")


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Path]:
    """Folders in each other, 1,100 deep."""
    nest, outer = tmp_path / "nest", tmp_path / "outer"
    nest.mkdir()
    for _ in range(1_100):
        outer.mkdir()
        nest.rename(outer / "n")
        outer.rename(nest)
    yield nest
    # What removes the folders of tests would go as deep.
    while (nest / "n").exists():
        (nest / "n").rename(outer)
        nest.rmdir()
        outer.rename(nest)


def test_a_nest_of_folders_is_refused_and_followed_by_nobody(models, nest):
    bad = models.registry.get("bad")
    place = nest.rename(models.folder / "bad" / "unet" / "nest")
    try:
        with pytest.raises(UntrustedModel, match="bad: it holds more"):
            bad.check_files(models.folder / "bad")
    finally:
        place.rename(nest)


@pytest.mark.parametrize(("goes", "told"), [("unet", "cannot be read"), ("x", "is not listed")])
def test_what_goes_while_a_folder_is_looked_through_is_no_error_without_a_name(
    models, monkeypatch, goes, told
):
    """A file is called by its name, as a missing one is, and not taken for something else."""
    folder = models.folder / "bad"
    bad = models.registry.get("bad")
    (folder / "x").write_text("x")
    scan = os.scandir

    def once(path):
        monkeypatch.undo()
        with scan(path) as found:
            entries = list(found)
        (folder / goes).rename(folder.parent / ".gone")
        return contextlib.nullcontext(iter(entries))

    monkeypatch.setattr(os, "scandir", once)
    with pytest.raises(UntrustedModel, match=f"{goes}/? {told}"):
        bad.check_files(folder)


class Bucket:
    """One without the models that are asked for."""

    def push(self, manifest) -> None:
        raise AssertionError

    def fetch(self, model_id: str) -> bool:
        return False


@pytest.mark.parametrize("ring", [("bad",), ("bad", "good")])
def test_a_model_that_says_it_was_made_from_itself_is_looked_at_and_refused(models, ring):
    """Whoever asks whether it is at hand reads manifests that nobody has signed."""
    made = {name: models.add(f"from-{name}", base=models.registry.get(name)) for name in ring}
    for name, base in zip(ring, (*ring[1:], ring[0]), strict=True):
        edited = made[base].model_copy(update={"id": name})
        edited.write(models.folder / name)
    models.registry.mirror = Bucket()

    assert models.registry.is_at_hand("bad")
    with pytest.raises(UntrustedModel):
        models.registry.get("bad")


def test_changing_a_manifest_never_leaves_a_file_beside_it(models, monkeypatch):
    """Else a model would be refused while its status is written, and for ever after a crash."""
    before = sorted(path.name for path in (models.folder / "good").iterdir())

    def full(handle: int) -> None:
        assert sorted(path.name for path in (models.folder / "good").iterdir()) == before
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        models.promote("good")
    monkeypatch.undo()

    models.registry.get("good").check_files(models.folder / "good")
    assert models.promote("good").status == "serving"


@pytest.mark.parametrize(
    "name",
    [
        "../good/model_index.json",
        "/etc/passwd",
        "unet/../../good/x",
        "a//b",
        "./a",
        "",
        "a/..",
        "a\0",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused_though_it_is_signed(models, name):
    """As a bucket or a copy might be led astray by it."""
    bad = models.registry.get("bad")
    files = {**bad.files, name: "0" * 64}
    bad.model_copy(update={"files": files}).signed(models.signer).write(models.folder / "bad")

    with pytest.raises(UntrustedModel, match="no path inside"):
        models.registry.get("bad")
    assert [one.id for one in models.registry.all()] == ["good"]
