"""A worker counts what it drew, how full its batches were and what it waited for."""

import shutil
import time

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from core.storage import Storage
from core.tracing import Tracing
from worker import metrics


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def since():
    """How much a sample has grown since the test began."""
    before: dict[tuple, float] = {}

    def grown(name: str, **labels: str) -> float:
        return value(name, **labels) - before[(name, *labels.items())]

    def mark(name: str, **labels: str) -> None:
        before[(name, *labels.items())] = value(name, **labels)

    grown.mark = mark
    return grown


def test_a_step_tells_its_shape_and_its_rows(since):
    since.mark("t2i_denoise_step_seconds_count", shape="128x128")
    since.mark("t2i_batch_size_sum")

    with metrics.timed_step(rows=3, largest_px=(64, 96)):
        time.sleep(0)

    assert since("t2i_denoise_step_seconds_count", shape="128x128") == 1
    assert since("t2i_batch_size_sum") == 3


def test_of_the_sizes_that_clients_may_ask_for_few_shapes_are_kept():
    sides = range(64, 2049, 64)
    shapes = {metrics._square(width, height) for width in sides for height in sides}
    assert shapes == {f"{side}x{side}" for side in (64, 128, 256, 512, 1024, 2048)}


def test_a_step_that_failed_is_not_counted(since):
    since.mark("t2i_batch_size_count")

    with pytest.raises(ZeroDivisionError), metrics.timed_step(rows=1, largest_px=(64, 64)):
        1 / 0  # noqa: B018

    assert since("t2i_batch_size_count") == 0


def test_time_at_the_device_counts_even_where_it_was_in_vain(since):
    name = "t2i_device_busy_seconds_total"
    since.mark(name, work="swap")

    def fail() -> None:
        time.sleep(0.02)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), metrics.at_device("swap"):
        fail()

    assert since(name, work="swap") >= 0.02


def test_a_drawn_job_tells_what_the_device_was_used_for_and_no_more_than_passed(
    make_batcher, submit, since
):
    name, works = "t2i_device_busy_seconds_total", ("load", "encode", "step", "decode", "preview")
    for work in works:
        since.mark(name, work=work)
    submit(num_inference_steps=3, previews=1)

    began_s = time.perf_counter()
    make_batcher().drain()
    passed_s = time.perf_counter() - began_s

    spent_s = [since(name, work=work) for work in works]
    assert all(one > 0 for one in spent_s)
    assert sum(spent_s) <= passed_s


class TestGpu:
    @pytest.fixture(autouse=True)
    def _afresh(self):
        yield
        metrics.GPU_MEMORY.clear()
        metrics.GPU_UTILISATION.clear()

    def test_what_its_driver_says_is_shown_as_a_share(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "utilization", lambda device: {1: 40}[device])
        metrics.watch_gpu(1)

        assert value("t2i_gpu_utilisation_ratio", gpu="1") == 0.4

    def test_where_nobody_asks_the_driver_nothing_is_shown_of_it(self, monkeypatch):
        def missing(device):
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

        monkeypatch.setattr(torch.cuda, "utilization", missing)
        metrics.watch_gpu(0)

        assert REGISTRY.get_sample_value("t2i_gpu_utilisation_ratio", {"gpu": "0"}) is None

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    def test_memory_of_a_gpu_is_what_torch_holds_there(self):
        metrics.watch_gpu(0)
        held = torch.zeros(1 << 20, device="cuda:0")

        assert value("t2i_gpu_memory_bytes", state="allocated") >= held.nbytes
        assert value("t2i_gpu_memory_bytes", state="reserved") >= held.nbytes


def test_only_the_stage_that_runs_is_shown():
    metrics.erasing("captions", 0.5)
    metrics.erasing("edit", 0.1)

    assert REGISTRY.get_sample_value("t2i_erasure_progress_ratio", {"stage": "captions"}) is None
    assert value("t2i_erasure_progress_ratio", stage="edit") == 0.1
    metrics.not_erasing()
    assert REGISTRY.get_sample_value("t2i_erasure_progress_ratio", {"stage": "edit"}) is None


def test_a_job_is_counted_from_its_wait_to_its_picture(make_batcher, submit, since):
    names = [
        ("t2i_images_total", {"outcome": "stop"}),
        ("t2i_queue_wait_seconds_count", {"kind": "generation"}),
        ("t2i_model_swap_seconds_count", {"kind": "full"}),
        ("t2i_batch_size_count", {}),
    ]
    for name, labels in names:
        since.mark(name, **labels)
    submit(n=2, num_inference_steps=3)

    make_batcher().drain()

    assert [since(name, **labels) for name, labels in names] == [2, 1, 1, 3]


def test_pictures_that_cannot_be_stored_are_counted(make_batcher, submit, since, tmp_path):
    (tmp_path / "full").write_text("")
    since.mark("t2i_pictures_not_stored_total")
    submit(num_inference_steps=2)

    make_batcher(storage=Storage(tmp_path / "full")).drain()

    assert since("t2i_pictures_not_stored_total") == 1


def test_a_drawn_job_leaves_its_wait_and_its_drawing_in_the_trace(make_batcher, submit):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    batcher = make_batcher()
    batcher._storing._commits._tracing = Tracing(provider)
    job_id = submit(num_inference_steps=2)

    batcher.drain()

    wait, draw = exporter.get_finished_spans()
    assert [wait.name, draw.name] == ["wait", "draw"]
    assert wait.end_time == draw.start_time
    assert draw.attributes["job"] == job_id
    assert draw.attributes["kept"] is True


def test_the_room_below_the_data_folder_is_shown_once_it_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(metrics.DISK, "folder", None)
    assert REGISTRY.get_sample_value("t2i_data_disk_bytes", {"state": "free"}) is None

    metrics.watch_disk(tmp_path)
    assert value("t2i_data_disk_bytes", state="size") == shutil.disk_usage(tmp_path).total

    metrics.watch_disk(tmp_path / "gone")
    assert REGISTRY.get_sample_value("t2i_data_disk_bytes", {"state": "free"}) is None
