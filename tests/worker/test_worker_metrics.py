"""A worker counts what it drew, how full its batches were and what it waited for."""

import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

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
    since.mark("t2i_denoise_step_seconds_count", shape="64x96")
    since.mark("t2i_batch_size_sum")

    with metrics.timed_step(rows=3, largest_px=(64, 96)):
        time.sleep(0)

    assert since("t2i_denoise_step_seconds_count", shape="64x96") == 1
    assert since("t2i_batch_size_sum") == 3


def test_a_step_that_failed_is_not_counted(since):
    since.mark("t2i_batch_size_count")

    with pytest.raises(ZeroDivisionError), metrics.timed_step(rows=1, largest_px=(64, 64)):
        1 / 0  # noqa: B018

    assert since("t2i_batch_size_count") == 0


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


def test_a_drawn_job_leaves_its_wait_and_its_drawing_in_the_trace(make_batcher, submit):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    batcher = make_batcher()
    batcher._tracing = Tracing(provider)
    job_id = submit(num_inference_steps=2)

    batcher.drain()

    wait, draw = exporter.get_finished_spans()
    assert [wait.name, draw.name] == ["wait", "draw"]
    assert wait.end_time == draw.start_time
    assert draw.attributes["job"] == job_id
    assert draw.attributes["kept"] is True
