import time
from pathlib import Path

import pytest

from core.leavings import DAY_S
from core.user_cache import user_cache


def test_it_is_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))

    assert user_cache() == tmp_path / "kept" / "trce"
    assert user_cache().is_dir()


@pytest.mark.parametrize("given", [None, "", "not/absolute"])
def test_it_is_in_the_home_otherwise(tmp_path, monkeypatch, given):
    monkeypatch.delenv("XDG_CACHE_HOME")
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert user_cache() == tmp_path / ".cache" / "trce"


def test_a_place_that_cannot_be_written_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert user_cache() is None


def test_a_user_without_a_home_has_none(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)

    assert user_cache() is None


def test_what_nobody_used_for_a_month_goes(monkeypatch):
    (user_cache() / "sum.safetensors").touch()
    now = time.time()
    for days, kept in ((29, True), (31, False)):
        monkeypatch.setattr(time, "time", lambda days=days: now + days * DAY_S)
        assert (user_cache() / "sum.safetensors").exists() is kept
