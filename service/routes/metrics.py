"""/metrics: what Prometheus reads."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from service.callers import may
from service.problems import refusals
from service.wiring import InParts

TEXT = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    dependencies=[may("admin")],
    response_class=PlainTextResponse,
    responses=refusals(401, 403),
)
def read_metrics(parts: InParts) -> PlainTextResponse:
    """Counters and gauges in Prometheus' text format; names models and workers, so for admins.

    TRCE_METRICS_PORT shows the same without a key, for a network that only Prometheus is in.
    """
    return PlainTextResponse(parts.metrics.text(), media_type=TEXT)
