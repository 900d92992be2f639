"""/v1/dead-letters: jobs that used up their attempts, and where to have them tried again."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from core.job_specs import Kind
from core.jobs import Job
from service.callers import InCaller, known
from service.lists import Resource
from service.problems import refusals
from service.wiring import InParts

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], dependencies=[known()])


class DeadLetter(Resource):
    object: Literal["dead_letter"] = "dead_letter"
    kind: Kind
    tenant: str
    attempt: int
    finished_at: float | None
    reason: str | None
    retry: str
    """The address to POST to."""

    @classmethod
    def of(cls, job: Job) -> "DeadLetter":
        return cls(
            **job.model_dump(include={"id", "tenant", "attempt", "finished_at", "reason"}),
            kind=job.spec.kind,
            retry=f"/v1/{job.spec.kind}s/{job.id}/retry",
        )


class DeadLetters(BaseModel):
    object: Literal["list"] = "list"
    data: list[DeadLetter]


@router.get("", responses=refusals())
def list_dead_letters(parts: InParts, caller: InCaller) -> DeadLetters:
    """Those of the caller's tenant, for an admin of all; the latest first, at most 1000."""
    jobs = [job for job in parts.jobs.lists.dead() if caller.sees in {None, job.tenant}]
    return DeadLetters(data=[DeadLetter.of(job) for job in jobs])
