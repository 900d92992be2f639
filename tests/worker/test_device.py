"""Where and how a worker computes."""

import numpy as np
import pytest
import torch
from PIL import Image

from core.jobs import JobState
from core.settings import Settings
from worker.device import placement
from worker.shelf import Shelf


def chosen(owner: str = "inference-0@host", *, gpus: int = 0, **settings):
    return placement(Settings(_env_file=None, **settings), owner, gpus=gpus)


def test_without_a_gpu_it_is_the_cpu_in_full_precision():
    place = chosen()
    assert (place.device, place.dtype) == (torch.device("cpu"), torch.float32)


def test_each_worker_of_a_host_has_a_gpu_of_its_own():
    devices = [str(chosen(f"inference-{n}@host", gpus=4).device) for n in range(5)]
    assert devices == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0"]
    assert chosen(gpus=4).dtype is torch.float16


@pytest.mark.parametrize(
    ("device", "owner", "is_"),
    [
        ("cuda", "inference-1@host", "cuda:1"),
        ("cuda:1", "inference-0@host", "cuda:1"),
        ("cpu", "inference-1@host", "cpu"),
        ("auto", "inference-blue@host", "cuda:0"),
    ],
)
def test_a_device_that_is_named_is_taken(device, owner, is_):
    assert str(chosen(owner, gpus=2, device=device).device) == is_


def test_precision_and_layout_are_as_the_settings_say():
    place = chosen(precision="bfloat16", channels_last=False)
    assert (place.dtype, place.layout) == (torch.bfloat16, torch.contiguous_format)


@pytest.mark.parametrize(
    ("dtype", "layout", "close"),
    [
        pytest.param(torch.float32, torch.channels_last, 1, id="channels last"),
        pytest.param(torch.bfloat16, torch.channels_last, 40, id="bfloat16"),
    ],
)
def test_pictures_are_what_they_are_in_the_usual_layout_and_precision(
    jobs, storage, registry, submit, make_batcher, dtype, layout, close
):
    pictures = []
    for options in ({"dtype": torch.float32}, {"dtype": dtype, "layout": layout}):
        shelf = Shelf(registry, device=torch.device("cpu"), **options)
        job_id = submit("a red apple", num_inference_steps=8)
        make_batcher(shelf=shelf).drain()
        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED, job.reason
        with storage_file(storage, job) as picture:
            pictures.append(np.asarray(picture, dtype=np.int16))

    assert np.abs(pictures[0] - pictures[1]).mean() <= close


def storage_file(storage, job) -> Image.Image:
    import io

    return Image.open(io.BytesIO(storage.get(job.images[0].key)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_draws_in_half_precision(jobs, registry, submit, make_batcher):
    shelf = Shelf(registry, device=torch.device("cuda"), dtype=torch.float16)
    job_id = submit()
    make_batcher(shelf=shelf).drain()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
