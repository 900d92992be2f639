"""One worker for each GPU, or for each core; or as many as somebody wants."""

import psutil
import pytest

from cli.stack import worker_count
from cli.stack.worker_count import count_gpus, inference_workers
from core.settings import Settings


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Of so many cores, GPUs and GiB of free memory."""

    def make(*, cores=4, gpus=0, free_gib=64):
        for number in range(gpus):
            (tmp_path / f"0000:0{number}:00.0").mkdir()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(
            worker_count, "count_gpus", lambda environ: count_gpus(environ, tmp_path)
        )
        monkeypatch.setattr(worker_count.os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(worker_count, "available_bytes", lambda: free_gib * 2**30)

    return make


def test_free_memory_is_what_the_kernel_says():
    assert worker_count.available_bytes() == pytest.approx(
        psutil.virtual_memory().available, rel=0.2
    )


def of(**settings) -> int:
    return inference_workers(Settings(_env_file=None, **settings))


@pytest.mark.parametrize(
    ("there", "settings", "workers"),
    [
        pytest.param({"cores": 4}, {}, 4, id="a core each"),
        pytest.param({"cores": 8}, {"cpu_threads": 3}, 2, id="threads"),
        pytest.param({"cores": 1}, {"cpu_threads": 2}, 1, id="one at least"),
        pytest.param({"cores": 64, "free_gib": 7}, {}, 3, id="memory"),
        pytest.param({"free_gib": 1}, {}, 1, id="hardly any memory"),
        pytest.param({"cores": 64, "gpus": 3}, {}, 3, id="a GPU each"),
        pytest.param({"cores": 4, "gpus": 3}, {"device": "cpu"}, 4, id="GPUs that are not used"),
        pytest.param({"gpus": 3}, {"device": "cuda:1"}, 1, id="one GPU"),
        pytest.param({"gpus": 0}, {"device": "cuda"}, 1, id="a GPU that is not seen"),
        pytest.param({"cores": 4, "gpus": 3}, {"inference_workers": 2}, 2, id="as was said"),
        pytest.param({}, {"inference_workers": 0}, 0, id="none"),
    ],
)
def test_there_is_one_for_each_device_unless_somebody_says(machine, there, settings, workers):
    machine(**there)
    assert of(**settings) == workers


def test_elsewhere_than_on_linux_it_goes_by_the_cores(machine, monkeypatch, tmp_path):
    machine(cores=1)
    monkeypatch.setattr(worker_count, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(worker_count.os, "cpu_count", lambda: 6)
    assert of(cpu_threads=2) == 3


@pytest.mark.parametrize(
    ("named", "shown"), [("", 0), ("-1", 0), ("2", 1), ("0,1", 2), ("0,-1,1", 1), ("0,1,2,3,4", 3)]
)
def test_cuda_shows_those_that_are_named(machine, monkeypatch, named, shown):
    machine(cores=7, gpus=3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert of() == (shown or 7)
