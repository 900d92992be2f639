import errno
import os
import time
from pathlib import Path

import pytest

from core.errors import ImageNotFound, PicturesUnavailable
from core.files import read_plain, remove_unfinished, write_atomically
from core.storage import Storage


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path, monkeypatch):
    written, other = tmp_path / "a.safetensors", tmp_path / ".a.txt.1"
    write_atomically(written, b"whole")
    other.write_bytes(b"other")
    with monkeypatch.context() as patch:
        patch.setattr("core.files.os.fsync", interrupted)
        patch.setattr("core.files.Path.unlink", lambda *_, **__: None)
        with pytest.raises(InterruptedError):
            write_atomically(written, b"half")
    assert len(list(tmp_path.iterdir())) == 3

    remove_unfinished(tmp_path, "*.safetensors")

    assert sorted(tmp_path.iterdir()) == sorted([written, other])


def interrupted(_: int) -> None:
    raise InterruptedError


def test_what_is_read_whole_is_a_plain_file_of_bounded_size(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    os.mkfifo(tmp_path / "pipe")

    assert read_plain(path, most_bytes=4) == b"1234"
    with pytest.raises(OSError, match="over 3 bytes"):
        read_plain(path, most_bytes=3)
    with pytest.raises(OSError, match="not a plain file"):
        read_plain(tmp_path / "pipe", most_bytes=4)


def test_a_pipe_is_no_picture(tmp_path):
    (tmp_path / "generations" / "a").mkdir(parents=True)
    os.mkfifo(tmp_path / "generations" / "a" / "0.png")

    with pytest.raises(PicturesUnavailable, match="not a plain file"):
        Storage(tmp_path).get("generations/a/0.png")


def test_what_was_put_is_got(tmp_path):
    storage = Storage(tmp_path)
    storage.put("generations/a/1/0.png", b"png")

    assert storage.get("generations/a/1/0.png") == b"png"


def test_what_could_not_be_put_whole_is_not_there(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("core.files.os.fsync", full)
    storage = Storage(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        storage.put("generations/a/1/0.png", b"png")

    assert not (tmp_path / "generations/a/1/0.png").exists()


def test_what_was_put_is_durable_with_its_name(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync

    def note(handle):
        synced.add(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr("core.files.os.fsync", note)
    Storage(tmp_path).put("generations/a/1/0.png", b"png")

    folder = tmp_path / "generations" / "a" / "1"
    # A folder of an earlier test may still be on its way to the disk.
    assert {path for path in synced if path.is_relative_to(tmp_path)} == {folder / "0.png", folder}


def test_what_was_deleted_is_gone(tmp_path):
    storage = Storage(tmp_path)
    storage.put("generations/a/1/0.png", b"png")
    storage.put("generations/b/1/0.png", b"png")
    storage.delete_below("generations/a")

    with pytest.raises(ImageNotFound):
        storage.get("generations/a/1/0.png")
    assert storage.get("generations/b/1/0.png") == b"png"


def test_old_generations_are_found(tmp_path):
    storage = Storage(tmp_path)
    storage.put("generations/a/1/0.png", b"png")
    written = (tmp_path / "generations" / "a").stat().st_mtime

    assert list(storage.older_than(60, now=written + 61)) == ["a"]
    assert list(storage.older_than(60, now=written + 59)) == []


def test_generations_that_another_service_deletes_meanwhile_are_passed_over(tmp_path):
    storage = Storage(tmp_path)
    storage.put("generations/a/1/0.png", b"png")
    (tmp_path / "generations" / "gone").symlink_to("nowhere")

    assert list(storage.older_than(60, now=time.time() + 61)) == ["a"]


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "a//b", "a/../b", "a/b/", "a/.."])
def test_a_key_never_leaves_the_folder(tmp_path, key):
    with pytest.raises(AssertionError):
        Storage(tmp_path).get(key)
