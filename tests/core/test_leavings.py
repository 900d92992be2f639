"""What a crash left goes, what somebody still works on stays."""

import errno
import os
import time
from pathlib import Path

import pytest

from core.leavings import CACHED_S, DAY_S, Leavings

HEX = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models" / ".incoming"


def leave(folder, name):
    (folder / name / "unet").mkdir(parents=True)
    (folder / name / "unet" / "weights.safetensors").write_bytes(b"half")
    return folder / name


@pytest.mark.parametrize(
    ("name", "days"),
    [
        (f"fetch-emoji.{HEX}", 1),
        (HEX, 1),
        (f"import-emoji.{HEX}", 1),
        (f"unpack-emoji.{HEX}", 1),
        (f"offline.{HEX}", 14),
    ],
)
def test_what_is_old_goes_and_what_is_younger_stays(folder, name, days):
    left = leave(folder, name)
    old = time.time() + days * DAY_S

    Leavings(folder).sweep(now=old - 60)
    assert left.exists()

    Leavings(folder).sweep(now=old + 60)
    assert not left.exists()


def test_what_is_still_written_to_stays_however_old_its_folder(folder):
    left = leave(folder, f"fetch-emoji.{HEX}")
    later = time.time() + 2 * DAY_S
    os.utime(left / "unet" / "weights.safetensors", (later, later))

    Leavings(folder).sweep(now=later + 60)

    assert left.exists()


@pytest.mark.parametrize("name", [f"job-{HEX}.{HEX}", "somebody's", "emoji"])
def test_what_is_none_of_these_is_let_alone(folder, name):
    left = leave(folder, name)

    Leavings(folder).sweep(now=time.time() + 100 * DAY_S)

    assert left.exists()


def test_where_a_link_points_to_is_let_alone(folder, tmp_path):
    elsewhere = leave(tmp_path, "elsewhere")
    folder.mkdir(parents=True)
    (folder / "fetch-link").symlink_to(elsewhere)

    Leavings(folder, tmp_path / "no such folder").sweep(now=time.time() + 100 * DAY_S)

    assert (elsewhere / "unet" / "weights.safetensors").exists()


def test_what_was_cached_goes_when_nobody_has_touched_it_for_long(tmp_path):
    drawn = tmp_path / "cache" / "pictures" / "abc" / "0.png"
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"png")
    half = drawn.with_name(".1.png.k3x0q")  # kill -9 in the midst of writing it
    half.write_bytes(b"p")
    leavings = Leavings(cache=tmp_path / "cache")

    leavings.sweep(now=time.time() + CACHED_S - 60)
    assert drawn.exists()

    later = time.time() + CACHED_S + 60
    os.utime(drawn, (later - DAY_S, drawn.stat().st_mtime))  # it was read
    leavings.sweep(now=later)
    assert drawn.exists()
    assert not half.exists()

    leavings.sweep(now=later + CACHED_S)
    assert list((tmp_path / "cache").iterdir()) == []


def test_manifests_that_were_half_written_go_and_locks_stay(tmp_path):
    (tmp_path / "fetch-emoji.lock").touch()
    (tmp_path / ".manifest.json.k3x0q").touch()
    leavings = Leavings(locks=tmp_path)

    leavings.sweep(now=time.time() + DAY_S - 60)
    assert len(list(tmp_path.iterdir())) == 2

    leavings.sweep(now=time.time() + DAY_S + 60)
    assert [path.name for path in tmp_path.iterdir()] == ["fetch-emoji.lock"]


@pytest.fixture
def before_looking_into(monkeypatch):
    """Has something happen to a folder just before it is looked into."""
    look = os.scandir

    def arrange(folder: Path, happen) -> None:
        def happen_first(path):
            if str(path) == str(folder):
                happen()
            return look(path)

        monkeypatch.setattr(os, "scandir", happen_first)

    return arrange


@pytest.mark.parametrize("within", ["models", "locks", "cache"])
def test_a_folder_that_vanishes_meanwhile_keeps_nothing_else_from_going(
    tmp_path, before_looking_into, within
):
    left = leave(tmp_path / "models", f"fetch-emoji.{HEX}")
    vanishing = {
        "models": left / "unet",
        "locks": tmp_path / "locks" / "some",
        "cache": tmp_path / "cache" / "pictures",
    }[within]
    vanishing.mkdir(parents=True, exist_ok=True)
    cached = tmp_path / "cache" / "sums.safetensors"
    cached.parent.mkdir(exist_ok=True)
    cached.touch()
    gone = tmp_path / "gone"
    before_looking_into(vanishing, lambda: gone.exists() or vanishing.rename(gone))
    leavings = Leavings(tmp_path / "models", locks=tmp_path / "locks", cache=tmp_path / "cache")

    leavings.sweep(now=time.time() + CACHED_S + 60)

    assert gone.exists()
    assert not left.exists()
    assert not cached.exists()


def test_a_disk_that_fails_is_told(tmp_path, before_looking_into):
    left = leave(tmp_path, f"fetch-emoji.{HEX}")

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before_looking_into(left / "unet", fail)

    with pytest.raises(OSError, match="Input/output error"):
        Leavings(tmp_path).sweep(now=time.time())
    assert left.exists()
