"""A worker is ready when what it was told to load is loaded, compiled and tried."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import worker.runtime
import worker.variant
from core.importing import import_base
from core.installation import open_default_model, open_registry
from core.jobs import JobState
from core.redis_connection import connect
from core.signing import Signer
from core.status_serials import StatusSerials
from diffusion.compiling import CompiledUNet
from diffusion.preparing import prepare_to_draw
from tests.tiny_model import make_model
from worker.room import MIB, Room
from worker.warming import warm_up


@pytest.fixture
def tiny(registry, settings, tmp_path):
    folder = make_model(tmp_path / "made")
    return import_base(folder, "tiny", registry, Signer.load(settings.keys_dir)).id


def test_a_model_that_cannot_be_drawn_with_is_left_out_and_the_others_are_there(
    make_shelf, tiny, registry
):
    (registry.path("emoji") / "vae" / "config.json").write_text("{}")
    shelf = make_shelf()
    warm_up(shelf, ["nowhere", "emoji", tiny])

    assert [base.manifest.id for base in shelf._bases.values()] == [tiny]


def test_before_redis_has_answered_once_nothing_is_warmed_and_the_worker_starts_all_the_same(
    make_shelf, settings
):
    with connect("redis://127.0.0.1:1", retry_s=0) as nobody:
        shelf = make_shelf(registry=open_registry(settings, StatusSerials(nobody)))
        warm_up(shelf, ["emoji"])

    assert shelf.models == []


def test_passes_are_timed_before_anybody_waits_for_them(
    make_shelf, make_batcher, submit, jobs, tiny, registry, tmp_path, monkeypatch
):
    cpu = torch.device("cpu")
    room = Room(cpu, torch.float32, lambda: 500 * MIB, tmp_path / "footprints")
    shelf = make_shelf(room=room)
    warm_up(shelf, [tiny])
    timed = []
    monkeypatch.setattr("worker.variant.rehearsal", lambda *told: timed.append(told))
    side = registry.get(tiny).drawing.native_px
    job_id = submit("a dog", model=tiny, width=side, height=side, n=4)
    make_batcher(shelf=shelf).drain()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert timed == []


def test_a_worker_beats_after_it_has_warmed_up(settings, jobs, monkeypatch):
    done = []

    class Beating:
        def __init__(self, owner):
            done.append(f"{owner} beats")

        def begin(self):
            done.append("its first beat was waited for")

    monkeypatch.setattr(worker.runtime, "warm_up", lambda shelf, models: done.append([*models]))
    monkeypatch.setattr(worker.runtime, "Heartbeat", Beating)
    told = settings.model_copy(update={"warm_up": "default tiny dall-e-3", "device": "cpu"})
    with connect(settings.redis_url) as client:
        open_default_model(told, client).point("pointed-to")
    worker.runtime.assemble("inference", "inference-0@test", told, jobs)

    assert done == [
        ["pointed-to", "tiny", "pointed-to"],
        "inference-0@test beats",
        "its first beat was waited for",
    ]


def test_a_compiled_model_draws_the_same_pictures_in_company(
    make_shelf, make_batcher, submit, jobs, storage, tiny, monkeypatch
):
    torch._dynamo.reset()
    monkeypatch.setattr("diffusion.compiling.BACKEND", "eager")
    shelf = make_shelf(buckets=(4,))
    warm_up(shelf, [tiny])
    (base,) = shelf._bases.values()
    assert base._compiled._shapes == {((8, 8), 4)}
    pictures = []
    for one in (make_shelf(), shelf):
        wishes = [{"seed": 1}, {"seed": 2, "num_inference_steps": 6, "guidance_scale": 1.0}]
        ids = [submit("a dog", model=tiny, width=16, height=16, **wish) for wish in wishes]
        make_batcher(shelf=one).drain()
        done = [jobs.get(job_id) for job_id in ids]
        assert [job.state for job in done] == [JobState.SUCCEEDED] * 2
        pictures.append(
            [
                np.asarray(Image.open(io.BytesIO(storage.get(job.images[0].key))), dtype=np.int16)
                for job in done
            ]
        )
    assert np.abs(np.stack(pictures[0]) - np.stack(pictures[1])).max() <= 1


def test_a_strict_picture_has_the_bits_of_a_model_that_was_loaded_again(
    make_shelf, make_batcher, submit, jobs, storage, tiny, monkeypatch
):
    """Loaded again it runs uncompiled."""
    torch._dynamo.reset()
    monkeypatch.setattr("diffusion.compiling.BACKEND", "eager")
    passes, call = [], CompiledUNet.__call__

    def rounded_otherwise(self, sample, timestep, **options):
        passes.append(len(sample))
        return (call(self, sample, timestep, **options)[0] + 0.1,)

    monkeypatch.setattr(CompiledUNet, "__call__", rounded_otherwise)
    compiled = make_shelf(buckets=(4,))
    warm_up(compiled, [tiny])
    passes.clear()
    pictures = []
    for shelf in (compiled, make_shelf()):
        job_id = submit("a dog", alone=True, model=tiny, width=16, height=16, n=2)
        make_batcher(shelf=shelf).drain()
        pictures.append([storage.get(one.key) for one in jobs.get(job_id).images])
    assert passes == []
    assert [pixels(one) for one in pictures[0]] == [pixels(one) for one in pictures[1]]

    submit("a dog", model=tiny, width=16, height=16, n=2)
    make_batcher(shelf=compiled).drain()
    assert passes


def pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()


def test_passes_are_timed_with_the_graphs_that_draw(make_shelf, tiny, tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr("diffusion.compiling.BACKEND", "eager")
    uncompiled = []

    def watched(components):
        prepare_to_draw(components)
        components.unet.conv_out.register_forward_pre_hook(
            lambda _, args: (
                None if torch.compiler.is_compiling() else uncompiled.append(len(args[0]))
            )
        )

    monkeypatch.setattr(worker.variant, "prepare_to_draw", watched)
    cpu = torch.device("cpu")
    room = Room(cpu, torch.float32, lambda: 500 * MIB, tmp_path / "footprints")
    shelf = make_shelf(room=room, buckets=(2, 4), most_rows=4)
    warm_up(shelf, [tiny])

    (base,) = shelf._bases.values()
    known = room._read(room._place(base.manifest.content_digest, (16, 16)))
    assert set(known.pass_s) == {2, 4}
    assert uncompiled == []
