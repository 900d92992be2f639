"""Requests leave spans in the trace of their id."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def test_a_request_is_recorded_by_its_route(client, parts, monkeypatch, generation):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(parts.tracing, "_tracer", provider.get_tracer("test"))

    client.get(f"/v1/generations/{generation['id']}", headers={"X-Request-Id": "mine"})

    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /v1/generations/{generation_id}"
    assert span.attributes["request_id"] == "mine"
    assert span.attributes["http.response.status_code"] == 200
