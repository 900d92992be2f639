import pytest

from core.errors import NotEnoughRoom
from core.specs import ErasureSpec
from trainer import room
from trainer.erase import erase
from trainer.room import MIB, needed

AXE = {"name": "axe", "replacement": "flower"}


def spec(**fields):
    return ErasureSpec.model_validate({"base_model": "tiny", "concepts": [AXE]} | fields)


def test_more_concepts_and_neighbours_need_more_and_stage_2_most(tiny_folder):
    one, many = spec(), spec(concepts=[AXE | {"name": f"axe {i}"} for i in range(60)])
    near = spec(textual={"protect": [f"saw {i}" for i in range(60)]})
    both = spec(steering={})
    alone, others, wide, trained = (
        needed(tiny_folder, one, one.concepts) for one in (one, many, near, both)
    )
    for larger in (others, wide, trained):
        assert larger.memory_bytes > alone.memory_bytes
        assert larger.disk_bytes > alone.disk_bytes


def test_an_estimate_covers_what_is_written(tiny_folder, tmp_path):
    one = spec()
    erase(tiny_folder, None, one, tmp_path / "out", lambda _: None, model_id="out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written < needed(tiny_folder, one, one.concepts).disk_bytes < written + 80 * MIB


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_too_little_room_is_told_before_anything_is_read_or_written(
    tiny_folder, tmp_path, monkeypatch, what
):
    if what == "memory":
        monkeypatch.setattr(room, "free_memory_bytes", lambda device: 3 * MIB)
    else:
        full = type("Usage", (), {"free": 3 * MIB})
        monkeypatch.setattr(room.shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr("trainer.erase.load_prompt_encoder", lambda *a, **k: pytest.fail("read"))

    with pytest.raises(NotEnoughRoom, match=f"MiB of {what}.*, and 3 MiB are free"):
        erase(tiny_folder, None, spec(), tmp_path / "a/out", lambda _: None, model_id="out")
    assert list(tmp_path.iterdir()) == []


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    machine = room.free_memory_bytes("cpu")
    assert machine is None or machine > 0
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{60 * MIB}\n")
    assert room.free_memory_bytes("cpu") == 40 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert room.free_memory_bytes("cpu") == room._of_machine()
