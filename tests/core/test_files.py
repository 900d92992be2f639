import pytest

from core.errors import ImageNotFound
from core.files import write_atomically
from core.storage import Storage


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_was_put_is_got(tmp_path):
    storage = Storage(tmp_path)
    storage.put("generations/a/1/0.png", b"png")

    assert storage.get("generations/a/1/0.png") == b"png"


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

    assert storage.older_than(60, now=written + 61) == ["a"]
    assert storage.older_than(60, now=written + 59) == []


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "a//b", "a/../b", "a/b/", "a/.."])
def test_a_key_never_leaves_the_folder(tmp_path, key):
    with pytest.raises(AssertionError):
        Storage(tmp_path).get(key)
