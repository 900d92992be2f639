"""What a crash left goes, what somebody still works on stays."""

import os
import time

import pytest

from core.leavings import DAY_S, Leavings

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
