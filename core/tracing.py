"""OpenTelemetry traces: a request and the job that it made are one trace.

The trace's id is made from the request's, which the job's record carries anyway; so service and
workers agree on it without telling each other anything.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from core.errors import Misconfigured

Value = str | int | float | bool


class Tracing:
    """Records what has ended. Without a provider it does nothing."""

    def __init__(self, provider: Any = None) -> None:
        """
        Args:
            provider: OpenTelemetry's TracerProvider.
        """
        self._provider = provider
        self._tracer = provider.get_tracer("trce") if provider is not None else None

    def record(
        self,
        name: str,
        request_id: str,
        *,
        began_s: float,
        ended_s: float,
        attributes: Mapping[str, Value],
        failed: bool = False,
    ) -> None:
        """One span in the trace of a request.

        Args:
            began_s, ended_s: unix seconds.
            attributes: no prompt, no key.
        """
        if self._tracer is None:
            return
        from opentelemetry.trace import (  # noqa: PLC0415
            NonRecordingSpan,
            SpanContext,
            Status,
            StatusCode,
            TraceFlags,
            set_span_in_context,
        )

        digest = hashlib.sha256(request_id.encode()).digest()
        root = SpanContext(
            trace_id=int.from_bytes(digest[:16]),
            span_id=int.from_bytes(digest[16:24]),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        span = self._tracer.start_span(
            name,
            context=set_span_in_context(NonRecordingSpan(root)),
            start_time=round(began_s * 1e9),
            attributes={"request_id": request_id, **attributes},
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(round(ended_s * 1e9))

    def close(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


def start_tracing(endpoint: str, process: str) -> Tracing:
    """Traces go to `endpoint` by OTLP over HTTP, in the background; nowhere if it is empty.

    Raises:
        Misconfigured: the extra `tracing` is not installed.
    """
    if not endpoint:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise Misconfigured(
            "TRCE_TRACE_ENDPOINT is set: `pip install 'trce-service[tracing]'`"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"trce-{process}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)
