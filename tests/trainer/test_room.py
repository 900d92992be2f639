import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from core.errors import NotEnoughRoom
from core.specs import ErasureSpec
from tests.tiny_model import make_model
from trainer import room
from trainer.erase import erase
from trainer.inputs import base_folder
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


def test_without_a_concept_the_bases_own_files_are_what_is_written(tiny_folder, tmp_path):
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    before = needed(base, spec(), ()).disk_bytes
    (base / "unet/another.safetensors").write_bytes(bytes(MIB))
    assert needed(base, spec(), ()).disk_bytes == before + MIB
    assert needed(base, spec(), spec().concepts).disk_bytes < before + MIB


def test_sums_of_pooled_embeddings_are_counted(tmp_path):
    base = make_model(tmp_path / "sdxl", family="sdxl")
    config = json.loads((base / "text_encoder_2/config.json").read_text())
    one, two = spec(), spec(concepts=[AXE, AXE | {"name": "bread"}])
    first, second = (needed(base, each, each.concepts).disk_bytes for each in (one, two))
    width = json.loads((base / "unet/config.json").read_text())["cross_attention_dim"]
    squares = width**2 + config["projection_dim"] ** 2
    withheld = room._withheld(base, two, two.concepts) - room._withheld(base, one, one.concepts)
    assert second - first == 2 * 8 * squares + withheld * 4 * room._context(base, "sdxl")


def test_room_to_unpack_a_file_is_asked_for_before_it_is_unpacked(tmp_path, monkeypatch):
    file = tmp_path / "base.safetensors"
    file.write_bytes(bytes(5 * MIB))
    free = type("Usage", (), {"free": 68 * MIB})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: free)
    unpack = "diffusion.originals.single_file.unpack_single_file"
    monkeypatch.setattr(unpack, lambda *a: pytest.fail("unpacked"))

    with (
        pytest.raises(NotEnoughRoom, match=r"base.safetensors needs about 69 MiB .* 68 MiB are"),
        base_folder(file, None, tmp_path / "a/out"),
    ):
        pytest.fail("opened")
    assert [path.name for path in tmp_path.iterdir()] == ["base.safetensors"]


def test_only_what_is_trained_has_gradients_and_moments(tiny_folder, monkeypatch):
    one = spec(steering={})
    need = needed(tiny_folder, one, one.concepts)
    trained = room._parameters(tiny_folder / "unet", room._is_trained)
    every = room._parameters(tiny_folder / "unet")
    monkeypatch.setattr(room, "_is_trained", lambda _: True)
    if_all_were = needed(tiny_folder, one, one.concepts)

    assert 0 < trained < every / 2
    assert if_all_were.memory_bytes - need.memory_bytes == 12 * (every - trained)


@pytest.mark.parametrize(
    "less",
    [{"batch": 2}, {"accumulation": 4}, {"gradient_checkpointing": True}, {"batch": 1}],
    ids=str,
)
def test_activations_of_a_step_are_counted(tiny_folder, less):
    large = {"batch": 64, "anchors": 2, "steps": 2, "trajectories": 1}
    more, fewer = (spec(steering=large | changed) for changed in ({}, less))
    full, part = (needed(tiny_folder, one, one.concepts).memory_bytes for one in (more, fewer))
    assert part < full


def test_processes_share_the_rows_of_a_step(tiny_folder):
    one = spec(steering={"batch": 64})
    alone, shared = (
        needed(tiny_folder, one, one.concepts, processes=count).memory_bytes for count in (1, 4)
    )
    assert shared < alone


def test_too_little_memory_for_stage_2_is_told_with_what_needs_less(
    tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(room, "free_memory_bytes", lambda device: 3 * MIB)
    with pytest.raises(NotEnoughRoom, match=r"batch.*accumulation.*autocast.*gradient_check"):
        erase(
            *(tiny_folder, None, spec(steering={}), tmp_path / "out", lambda _: None),
            model_id="out",
        )


def test_captions_that_speak_of_what_is_erased_are_counted(tiny_folder, tmp_path):
    """They are kept with the model: as many times the width as there are tokens in a prompt."""
    captions = ["a dog", *(f"bread number {i}" for i in range(300))]
    own = spec(textual={"captions": captions, "preserve": 0.02, "ridge": 1e-3})
    bread = spec(concepts=[AXE | {"name": "bread"}], textual=own.textual.model_dump())
    free, withheld = (needed(tiny_folder, one, one.concepts) for one in (own, bread))
    kept = withheld.disk_bytes - free.disk_bytes
    assert withheld.memory_bytes - free.memory_bytes == 2 * kept

    erase(tiny_folder, None, bread, tmp_path / "out", lambda _: None, model_id="out")
    with safe_open(str(tmp_path / "out/statistics.safetensors"), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if "withheld" in name}  # noqa: SIM118
    assert kept == sum(tensor.nbytes for tensor in tensors.values())


def test_more_points_need_more_memory_and_more_of_the_work_folder(tiny_folder):
    small, large = (
        spec(steering={"steps": 900, "batch": batch, "trajectories": 900}) for batch in (1, 8)
    )
    less, more = (needed(tiny_folder, one, one.concepts) for one in (small, large))
    assert more.memory_bytes > less.memory_bytes
    assert more.work_bytes > less.work_bytes
    assert more.disk_bytes == less.disk_bytes
    assert needed(tiny_folder, spec(), spec().concepts).work_bytes == 0


def test_an_estimate_covers_what_a_run_keeps(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.trce.finetune.CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("trainer.trce.draft.KEEP_EVERY_S", 0.0)
    few = {"steps": 3, "batch": 8, "trajectories": 20, "trajectory_steps": 2, "early": 1.0}
    one = spec(steering=few | {"kept_trajectories": 4, "learning_rate": 1e-4})
    work = tmp_path / "work"
    work.mkdir()
    seen = []

    def look(_):
        seen.append(sum(path.stat().st_size for path in work.iterdir() if path.is_file()))

    erase(tiny_folder, None, one, tmp_path / "out", look, model_id="out", work=work)
    assert 0 < max(seen) < needed(tiny_folder, one, one.concepts).work_bytes


@pytest.mark.parametrize("same_disk", [True, False])
def test_too_little_room_for_the_work_folder_is_told_before_the_run(
    tiny_folder, tmp_path, monkeypatch, same_disk
):
    """On one disk with the model, both must fit."""
    one = spec(steering={"steps": 2000, "batch": 64, "trajectories": 4000, "trajectory_steps": 40})
    need = needed(tiny_folder, one, one.concepts)
    place = tmp_path if same_disk else Path("/dev/shm")
    if not same_disk and not (place.is_dir() and place.stat().st_dev != tmp_path.stat().st_dev):
        pytest.skip("there is no second disk here")
    enough = need.disk_bytes + need.work_bytes - 1 if same_disk else need.work_bytes - 1
    full, empty = (type("Usage", (), {"free": size}) for size in (enough, 1 << 60))
    monkeypatch.setattr(
        room.shutil, "disk_usage", lambda path: full if path.is_relative_to(place) else empty
    )
    monkeypatch.setattr("trainer.erase.load_prompt_encoder", lambda *a, **k: pytest.fail("read"))

    with pytest.raises(NotEnoughRoom, match=f"MiB of disk at {place}"):
        erase(
            *(tiny_folder, None, one, tmp_path / "out", lambda _: None),
            model_id="out",
            work=place / "not-there-yet/work",
        )
    assert list(tmp_path.iterdir()) == []


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
    monkeypatch.setattr(room, "_of_machine", lambda: 50 * MIB)
    assert room.free_memory_bytes("cpu") == 50 * MIB


def test_files_that_a_container_has_read_leave_it_room(monkeypatch, tmp_path):
    """The kernel counts them as used, until somebody needs their memory."""
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{95 * MIB}\n")
    counts = {"anon": 15, "inactive_file": 50, "active_file": 20, "slab_reclaimable": 10}
    told = "".join(f"{name} {count * MIB}\n" for name, count in counts.items())
    (tmp_path / "memory.stat").write_text(told)
    monkeypatch.setattr(room, "_of_machine", lambda: None)

    assert room.free_memory_bytes("cpu") == 85 * MIB
