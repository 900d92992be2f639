"""/v1/models/{id}/reports: what was measured about a model, each file as it was signed."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from core.manifests import Manifest
from core.reports import FILENAME, PAGE
from service.callers import known
from service.problems import refusals
from service.wiring import InParts

router = APIRouter(prefix="/models/{model_id}/reports", tags=["models"], dependencies=[known()])

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""The page brings its pictures and its style; it runs nothing, and loads nothing."""


class ReportSummary(BaseModel):
    id: str
    created_at: float
    files: dict[str, str]
    """Name -> SHA-256, as the signed manifest has it."""


class ReportList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ReportSummary]
    """Oldest first."""
    missing: list[str]
    """What the model lacks before it may be promoted; empty when nothing."""


@router.get("", responses=refusals(404, 409))
def list_reports(model_id: str, parts: InParts) -> ReportList:
    """Every report about a model, and what a promotion of it would lack now."""
    manifest = _manifest(model_id, parts)
    entries = sorted(manifest.reports.items(), key=lambda item: item[1].created_at)
    return ReportList(
        data=[ReportSummary(id=name, **entry.model_dump()) for name, entry in entries],
        missing=parts.registry.serving.missing(manifest),
    )


@router.get(
    "/{report_id}/report.json",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}, **refusals(404, 409)},
)
def read_report(model_id: str, report_id: str, parts: InParts) -> Response:
    """The figures; docs/report.schema.json describes them."""
    data = parts.registry.reports.file(_manifest(model_id, parts), report_id, FILENAME)
    return Response(data, media_type="application/json")


@router.get(
    "/{report_id}/report.html",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}}, **refusals(404, 409)},
)
def read_report_page(model_id: str, report_id: str, parts: InParts) -> Response:
    """The same for people: plots, and pictures before and after."""
    data = parts.registry.reports.file(_manifest(model_id, parts), report_id, PAGE)
    headers = {"Content-Security-Policy": PAGE_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return Response(data, media_type="text/html; charset=utf-8", headers=headers)


def _manifest(model_id: str, parts: InParts) -> Manifest:
    return parts.registry.get(parts.registry.resolve(model_id))
