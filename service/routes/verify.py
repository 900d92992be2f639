"""/v1/verify: which model drew a picture, and what had been erased from that model."""

from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from core.manifests import ModelStatus
from core.picture_files import MEDIA_TYPE
from core.specs import Concept
from service.callers import known
from service.problems import refusals
from service.verification import Verdict, Verified
from service.wiring import InParts

ADDRESS = "/v1/verify"
router = APIRouter(prefix="/verify", tags=["verify"])

PICTURE = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "required": True,
        "content": dict.fromkeys(MEDIA_TYPE.values(), PICTURE),
        "description": "The file, as it is.",
    }
}


class Origin(BaseModel):
    """What the signed record says, and what is known of the model it names."""

    generation: str
    index: int
    seed: int
    made_at: int
    model: str
    model_digest: str
    certificate: str
    base_model: str | None
    base_digest: str | None
    signed_by: str
    installed: bool
    """Whether this very model is still here; what follows is null if not."""
    status: ModelStatus | None
    erased: list[Concept] | None
    report: str | None
    """Where what was measured about the model is listed, each report as it was signed."""

    @classmethod
    def of(cls, verified: Verified) -> "Origin | None":
        provenance, manifest = verified.provenance, verified.model
        if provenance is None:
            return None
        assert provenance.signature is not None
        erased: list[Concept] | None = None
        if manifest is not None:
            erased = list(manifest.edit.concepts) if manifest.edit else []
        return cls(
            **provenance.model_dump(include=set(cls.model_fields)),
            signed_by=provenance.signature.key_id,
            installed=manifest is not None,
            status=manifest.status if manifest else None,
            erased=erased,
            report=f"/v1/models/{manifest.id}/reports" if manifest else None,
        )


class Verification(BaseModel):
    object: Literal["verification"] = "verification"
    verdict: Verdict
    explanation: str
    changed: list[str]
    """Of an altered picture: `pixels`, `parameters` (the text beside them), or both."""
    origin: Origin | None
    """Null for `unknown`."""


def require_picture(request: Request) -> None:
    """Raises HTTPException: 415."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in MEDIA_TYPE.values():
        raise HTTPException(
            415, f"send the file itself, as one of {', '.join(MEDIA_TYPE.values())}"
        )


@router.post(
    "",
    dependencies=[known(), Depends(require_picture)],
    responses=refusals(413, 415, 422),
    openapi_extra=BODY,
)
async def verify_picture(request: Request, parts: InParts) -> Verification:
    """Say where a picture comes from: `intact`, `altered`, or `unknown`."""
    verified = await run_in_threadpool(parts.verification.verify, await request.body())
    return Verification(
        verdict=verified.verdict,
        explanation=verified.explanation,
        changed=list(verified.changed),
        origin=Origin.of(verified),
    )
