"""A mark tells one state of a file from every other."""

import os
import time

import pytest

from core.file_marks import mark_of

TICK_S = 0.02
"""Longer than a tick of the clock that file systems go by."""


def written(path):
    path.write_text("two")


def written_and_its_times_set_back(path):
    found = path.stat()
    path.write_text("two")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replaced(path):
    other = path.with_name("other")
    other.write_text("two")
    other.replace(path)


def deleted(path):
    path.unlink()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    return path


@pytest.mark.parametrize("change", [written, written_and_its_times_set_back, replaced, deleted])
def test_it_differs_after_a_change_of_as_many_bytes(file, change):
    before = mark_of(file)
    time.sleep(TICK_S)

    change(file)

    assert mark_of(file) != before


def test_it_stays_while_the_file_is_only_read(file):
    before = mark_of(file)

    file.read_text()

    assert mark_of(file) == before


def test_no_file_has_none(tmp_path):
    assert mark_of(tmp_path / "file") is None
