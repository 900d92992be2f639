"""What was checked is what is loaded, whatever happens to the files between the two."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import core.model_files
from core.checked_stream import LeftToCheck
from core.errors import UntrustedModel
from core.making import describe
from core.manifests import Drawing
from diffusion.loading import Components, check_base, load_base, load_prompt_encoder, load_unet

UNET = "unet/diffusion_pytorch_model.safetensors"
WEIGHTS = (UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def manifest(folder):
    drawing = Drawing(native_px=16, multiple_px=4, max_px=32)
    return describe(folder, model_id="m", family="sd1", drawing=drawing, code_version="0")


def all_files() -> list[str]:
    return [
        *WEIGHTS,
        *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "model_index.json",
    ]


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def poisoned(path: Path) -> bytes:
    """The same file with other numbers in it."""
    changed = path.with_suffix(".evil")
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, changed)
    data = changed.read_bytes()
    changed.unlink()
    return data


def load_base_checked_later(folder, manifest) -> Components:
    """As a worker does, which draws meanwhile."""
    left = LeftToCheck()
    parts = load_base(folder, manifest, later=left)
    make(left)
    return parts


def make(left: LeftToCheck) -> None:
    for check in [*left.read, *left.unread]:
        check()


both_ways = pytest.mark.parametrize(
    "load", [load_base, load_base_checked_later], ids=lambda one: one.__name__
)


def is_as_saved(parts: Components, saved: dict[str, dict[str, torch.Tensor]]) -> bool:
    modules = {WEIGHTS[0]: parts.unet, WEIGHTS[1]: parts.vae, WEIGHTS[2]: parts.text_encoder}
    return all(
        torch.equal(tensor, saved[name][key])
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    )


class TestEveryFile:
    @pytest.mark.parametrize("name", all_files())
    @pytest.mark.parametrize(
        "load",
        [load_base, load_base_checked_later, load_prompt_encoder, load_unet, check_base],
        ids=lambda one: one.__name__,
    )
    def test_a_flipped_bit_is_refused_by_name(self, folder, manifest, name, load):
        flip_a_bit(folder / name)

        with pytest.raises(UntrustedModel, match=name.rpartition("/")[2]):
            load(folder, manifest)

    @pytest.mark.parametrize("name", all_files())
    def test_a_missing_one_is_refused_by_name(self, folder, manifest, name):
        (folder / name).unlink()

        with pytest.raises(UntrustedModel, match=f"{name} is missing"):
            load_base(folder, manifest)

    @pytest.mark.parametrize("name", all_files())
    def test_one_behind_a_link_is_refused_by_name(self, folder, manifest, name, tmp_path):
        (folder / name).rename(tmp_path / "elsewhere")
        (folder / name).symlink_to(tmp_path / "elsewhere")

        with pytest.raises(UntrustedModel, match=f"{name} is not a plain file"):
            load_base(folder, manifest)

    @pytest.mark.parametrize("name", ["unet/pytorch_model.bin", "hook.py", "tokenizer/merges.txt"])
    def test_one_more_is_refused_by_name(self, folder, manifest, name):
        (folder / name).write_text("more")

        with pytest.raises(UntrustedModel, match=f"{name} is not listed"):
            load_base(folder, manifest)

    @pytest.mark.parametrize("name", WEIGHTS)
    def test_a_truncated_one_is_refused_by_name(self, folder, manifest, name):
        os.truncate(folder / name, (folder / name).stat().st_size - 4)

        with pytest.raises(UntrustedModel, match=name):
            load_base(folder, manifest)

    def test_two_that_changed_places_are_refused(self, folder, manifest):
        """Both are signed, each under the other's name."""
        unet, vae = folder / "unet/config.json", folder / "vae/config.json"
        kept = unet.read_bytes()
        unet.write_bytes(vae.read_bytes())
        vae.write_bytes(kept)

        with pytest.raises(UntrustedModel, match=r"config\.json differs"):
            load_base(folder, manifest)


class TestBetweenCheckAndUse:
    @both_ways
    def test_weights_replaced_once_they_are_open_are_not_loaded(
        self, folder, manifest, monkeypatch, load
    ):
        """A second opening of any file would find other numbers, or be refused."""
        saved = {name: load_file(folder / name) for name in WEIGHTS}
        evil = {folder / name: poisoned(folder / name) for name in WEIGHTS}
        open_plain, replaced = core.model_files.open_plain, []

        def open_and_replace(path: Path):
            file = open_plain(path)
            if path in evil:
                path.unlink()
                path.write_bytes(evil[path])
                replaced.append(path)
            return file

        monkeypatch.setattr(core.model_files, "open_plain", open_and_replace)
        parts = load(folder, manifest)

        assert is_as_saved(parts, saved)
        assert sorted(replaced) == sorted(evil)

    @both_ways
    def test_weights_overwritten_while_they_are_read_are_refused(
        self, folder, manifest, monkeypatch, load
    ):
        evil = poisoned(folder / UNET)
        read_header = core.safetensors_header.read_header

        def read_and_overwrite(stream, size, what):
            header = read_header(stream, size, what)
            if UNET in what:
                (folder / UNET).write_bytes(evil)
            return header

        monkeypatch.setattr("diffusion.weights.read_header", read_and_overwrite)
        # The beginning may be in a buffer already; larger than any, the rest is not.
        with pytest.raises(UntrustedModel, match=UNET):
            load(folder, manifest)

    @both_ways
    def test_whoever_swaps_a_file_all_the_time_gains_nothing(self, folder, manifest, load):
        """Whatever is loaded are the signed bytes; both are met, the signed file and the other."""
        saved = {name: load_file(folder / name) for name in WEIGHTS}
        good, evil = (folder / UNET).read_bytes(), poisoned(folder / UNET)
        done = threading.Event()

        def swap() -> None:
            while not done.is_set():
                for data in (evil, good):
                    (folder.parent / "next").write_bytes(data)
                    (folder.parent / "next").replace(folder / UNET)

        attacker = threading.Thread(target=swap)
        attacker.start()
        loaded, refusals = [], []
        give_up = time.monotonic() + 60
        try:
            while len(loaded) + len(refusals) < 20 or not (loaded and refusals):
                assert time.monotonic() < give_up, "the file never changed while it was loaded"
                try:
                    loaded.append(load(folder, manifest))
                except UntrustedModel as error:
                    refusals.append(str(error))
        finally:
            done.set()
            attacker.join()

        assert all(is_as_saved(parts, saved) for parts in loaded)
        assert all(UNET in reason for reason in refusals)


def test_nothing_loaded_follows_the_file(folder, manifest):
    """Not a view of it: what is served does not change with what is on disk."""
    saved = {name: load_file(folder / name) for name in WEIGHTS}
    saved = {name: {k: t.clone() for k, t in one.items()} for name, one in saved.items()}
    parts = load_base(folder, manifest)

    for name in WEIGHTS:
        (folder / name).write_bytes(poisoned(folder / name))

    assert is_as_saved(parts, saved)


class TestCheckedLater:
    """What is left to check is in memory: files that change meanwhile are met by nobody."""

    def test_what_nobody_needs_is_read_by_its_check_and_the_rest_is_not_read_again(
        self, folder, manifest
    ):
        left = LeftToCheck()
        (folder / "README.md").write_text("more")
        more = describe(
            folder,
            model_id="m",
            family="sd1",
            drawing=manifest.drawing,
            code_version="0",
        )
        load_base(folder, more, later=left)
        for name in all_files():
            (folder / name).unlink()

        make(left)
        assert len(left.unread) == 1

    def test_a_check_reads_what_was_loaded_and_not_the_file(self, folder, manifest):
        for name in WEIGHTS:
            flip_a_bit(folder / name)
        left = LeftToCheck()
        load_base(folder, manifest, later=left)
        # Put right before anybody looks.
        for name in WEIGHTS:
            flip_a_bit(folder / name)

        refused = []
        for check in left.read:
            try:
                check()
            except UntrustedModel as error:
                refused.append(str(error))
        assert [any(name in told for told in refused) for name in WEIGHTS] == [True] * 3
        assert len(refused) == len(WEIGHTS)

    def test_a_layout_of_its_own_does_not_change_what_was_read(self, folder, manifest):
        left = LeftToCheck()
        parts = load_base(folder, manifest, later=left)
        for part in (parts.unet, parts.vae):
            part.to(memory_format=torch.channels_last)

        assert len(left.read) == len(WEIGHTS)
        make(left)

    def test_weights_that_are_written_to_do_not_pass(self, folder, manifest):
        left = LeftToCheck()
        parts = load_base(folder, manifest, later=left)
        with torch.no_grad():
            next(parts.unet.parameters()).add_(1)

        with pytest.raises(UntrustedModel, match=UNET):
            make(left)

    def test_weights_that_are_drawn_with_as_another_type_are_checked_as_they_were_read(
        self, folder, manifest
    ):
        left = LeftToCheck()
        load_base(folder, manifest, dtype=torch.bfloat16, later=left)
        make(left)
        flip_a_bit(folder / UNET)
        load_base(folder, manifest, dtype=torch.bfloat16, later=(changed := LeftToCheck()))

        with pytest.raises(UntrustedModel, match=UNET):
            make(changed)

    def test_weights_for_a_device_of_its_own_are_checked_when_they_are_read(
        self, folder, manifest
    ):
        """They are copied away; what was read would be kept for nothing else."""
        flip_a_bit(folder / UNET)
        with pytest.raises(UntrustedModel, match=UNET):
            load_base(folder, manifest, device="meta", later=LeftToCheck())

    def test_a_file_that_has_grown_is_refused(self, folder, manifest, monkeypatch):
        read_header = core.safetensors_header.read_header

        def read_and_grow(stream, size, what):
            header = read_header(stream, size, what)
            if UNET in what:
                with (folder / UNET).open("ab") as file:
                    file.write(b"more")
            return header

        monkeypatch.setattr("diffusion.weights.read_header", read_and_grow)
        with pytest.raises(UntrustedModel, match=UNET):
            load_base_checked_later(folder, manifest)
