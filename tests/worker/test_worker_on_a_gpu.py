"""A worker whose device is a GPU: how it counts its memory, gives it back, and swaps models."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from core.jobs import JobState
from worker.device import free_bytes
from worker.room import MIB, Room
from worker.shelf import Shelf

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

HELD_BYTES = 256 * MIB
SLACK_BYTES = 64 * MIB
"""Others may use the device, and torch takes whole blocks."""


def pixels(storage, job) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(storage.get(job.generation.images[0].key))))


@pytest.fixture
def gpu() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def shelf(registry, gpu, tmp_path) -> Shelf:
    room = Room(gpu, torch.float16, lambda: free_bytes(gpu), tmp_path / "footprints")
    return Shelf(registry, device=gpu, dtype=torch.float16, room=room)


def test_memory_that_torch_keeps_for_later_is_free(gpu):
    before = free_bytes(gpu)
    held = torch.empty(HELD_BYTES, dtype=torch.uint8, device=gpu)
    during = free_bytes(gpu)
    del held

    assert before - during >= HELD_BYTES - SLACK_BYTES
    assert abs(free_bytes(gpu) - before) <= SLACK_BYTES


def test_a_base_that_gives_way_gives_its_memory_back(shelf, gpu):
    before = torch.cuda.memory_allocated(gpu)
    weights = shelf.variant("emoji").base.size_bytes
    assert torch.cuda.memory_allocated(gpu) - before >= weights

    shelf._forget(next(iter(shelf._bases)))
    assert torch.cuda.memory_allocated(gpu) - before < weights / 2


def test_models_that_are_swapped_in_half_precision_are_all_drawn(
    jobs, submit, make_batcher, add_variant, shelf
):
    for name, seed in (("one", 1), ("two", 2)):
        add_variant(name, seed=seed, scale=0.02)
    ids = [submit(model=model, n=2) for model in ("emoji", "one", "two", "emoji")]
    make_batcher(shelf=shelf).drain()

    assert [jobs.get(job_id).state for job_id in ids] == [JobState.SUCCEEDED] * len(ids)


def test_a_strict_job_gives_the_same_bits_every_time(jobs, storage, submit, make_batcher, shelf):
    ids = [submit("a tree", alone=True), submit(seed=1), submit("a tree", alone=True)]
    batcher = make_batcher(shelf=shelf)
    batcher.drain()

    first, _, again = (pixels(storage, jobs.get(job_id)) for job_id in ids)
    assert np.array_equal(first, again)
