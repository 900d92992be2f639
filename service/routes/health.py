"""/healthz and /readyz: is the process alive, and would a request be answered with a picture?"""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from service.problems import problem, refusals
from service.wiring import InParts

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    refused_models: list[str] = []
    """Those that fail their checks; `GET /v1/models` tells why. The others are served."""
    warnings: list[str] = []
    """Requests that are refused all the same: those for `default`, while that is not served."""


@router.get("/healthz", responses=refusals())
async def read_health() -> Alive:
    """Says nothing about Redis or workers: restarting this process would not mend those."""
    # Not a plain def: all threads may be waiting for a broker that hangs.
    return Alive()


@router.get("/readyz", response_model=Ready, responses=refusals(503))
def read_readiness(request: Request, parts: InParts) -> Ready | Response:
    """Redis answers, an inference worker beats, a model is served; or 503 and what is missing."""
    refused = sorted(parts.refused.all())
    missing = parts.readiness.missing()
    if missing:
        return problem(
            request.url.path,
            503,
            "; ".join(missing),
            title="Not ready",
            headers={"Retry-After": "2"},
            missing=missing,
            refused_models=refused,
        )
    return Ready(refused_models=refused, warnings=parts.readiness.warnings())
