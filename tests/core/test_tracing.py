"""Spans of one request, wherever they are recorded, are one trace."""

import hashlib
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.tracing import Tracing, start_tracing


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


def tracing_to(exporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


def test_processes_that_know_a_request_agree_on_its_trace(exporter):
    for name, failed in (("POST /v1/generations", True), ("draw", False)):
        tracing_to(exporter).record(
            name, "r-1", began_s=10.0, ended_s=10.5, attributes={"job": "j"}, failed=failed
        )
    tracing_to(exporter).record("draw", "r-2", began_s=10.0, ended_s=10.5, attributes={})

    first, second, other = exporter.get_finished_spans()
    wanted = hashlib.sha256(b"r-1").hexdigest()[:32]
    assert f"{first.context.trace_id:032x}" == f"{second.context.trace_id:032x}" == wanted
    assert other.context.trace_id != first.context.trace_id
    assert (first.end_time - first.start_time) == 500_000_000
    assert first.attributes == {"request_id": "r-1", "job": "j"}
    assert [first.status.is_ok, second.status.is_ok] == [False, True]


@pytest.mark.parametrize(("endpoint", "exporters"), [("", 0), ("http://127.0.0.1:9/v1/traces", 1)])
def test_only_with_an_endpoint_is_there_a_thread_that_exports(endpoint, exporters):
    before = set(threading.enumerate())
    tracing = start_tracing(endpoint, "service")
    made = set(threading.enumerate()) - before
    tracing.close()

    assert len(made) == exporters
