"""/v1/audit: who promoted what, changed which policy, made which key, and why."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from core.audit import AuditEntry
from service.callers import may
from service.headers import Limit
from service.problems import refusals
from service.wiring import InParts

router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[may("admin")])

After = Annotated[
    int | None, Query(ge=1, description="The number of the last entry of the page before.")
]


class AuditPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[AuditEntry]
    first_id: int | None
    last_id: int | None
    has_more: bool
    broken_at: int | None
    """The newest entry of the page that is not as it was written; null: all are."""


@router.get("", responses=refusals(404, 422))
def list_audit(parts: InParts, limit: Limit = 20, after: After = None) -> AuditPage:
    """What operators did, newest first, checked against signatures and chain."""
    found = parts.audit.page(limit=limit + 1, before=after)
    shown = found[:limit]
    return AuditPage(
        data=shown,
        first_id=shown[0].number if shown else None,
        last_id=shown[-1].number if shown else None,
        has_more=len(found) > limit,
        broken_at=parts.audit.broken(found, chained=after is not None),
    )
