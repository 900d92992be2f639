"""A job: one accepted spec, and how far it has come.

    QUEUED ──claim──▶ RUNNING ──commit──▶ SUCCEEDED | FAILED | CANCELLED
       ▲  │              │
       │  └─cancel───────┼──────────────▶ CANCELLED
       └──lease lapsed───┘

    Past its deadline one that waits fails; so does one that runs, when its worker next looks.

The record lives in Redis and moves only through the scripts in `core/lua/`; a `Job` is what it
looked like when it was read.
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.callers import LOCAL
from core.evaluation import EvaluationSpec
from core.findings import Finding, FinishReason
from core.job_specs import JobSpec
from core.progress import Progress
from core.specs import ErasureSpec, GenerationSpec


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class ImageRecord(BaseModel):
    """What became of one picture: where it is stored, or why there is none; what redraws it."""

    model_config = ConfigDict(frozen=True)

    key: str | None = None
    """None unless `finish_reason` is `stop`."""
    seed: int
    finish_reason: FinishReason = "stop"
    finding: Finding | None = None
    reason: str | None = None
    """What went wrong, for `error`."""


class GenerationResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: str
    images: tuple[ImageRecord, ...]


class ErasureResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    erased_model: str
    seconds: float


class EvaluationResult(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: str
    report: str
    """The report's id among those of the model."""
    seconds: float


class Job(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: str
    spec: JobSpec
    state: JobState
    tenant: str
    request_id: str = ""
    attempt: int
    max_attempts: int
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline: float | None = None
    """When it is given up."""
    webhook: str | None = None
    """Where its end is told."""
    webhook_tries: int = 0
    webhook_delivered: bool = False
    webhook_problem: str = ""
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    reason: str | None = None
    cancelling: bool = False

    @property
    def late(self) -> bool:
        """It failed, and by then its deadline had passed."""
        return (
            self.state is JobState.FAILED
            and self.deadline is not None
            and self.finished_at is not None
            and self.finished_at >= self.deadline
        )

    @property
    def generation(self) -> GenerationResult | None:
        """The pictures, once there are some."""
        if self.result is None or not isinstance(self.spec, GenerationSpec):
            return None
        return GenerationResult.model_validate(self.result)

    @property
    def images(self) -> tuple[ImageRecord, ...]:
        """What became of each picture, once the job has ended: one record for each asked for."""
        if not isinstance(self.spec, GenerationSpec) or not self.state.ended:
            return ()
        if self.generation is not None:
            return self.generation.images
        cancelled = self.state is JobState.CANCELLED
        return tuple(
            ImageRecord(
                seed=(self.spec.seed or 0) + index,
                finish_reason="cancelled" if cancelled else "error",
                reason=None if cancelled else self.reason,
            )
            for index in range(self.spec.n)
        )

    @property
    def erasure(self) -> ErasureResult | None:
        """The erased model, once there is one."""
        if self.result is None or not isinstance(self.spec, ErasureSpec):
            return None
        return ErasureResult.model_validate(self.result)

    @property
    def evaluation(self) -> EvaluationResult | None:
        """Where the report is, once there is one."""
        if self.result is None or not isinstance(self.spec, EvaluationSpec):
            return None
        return EvaluationResult.model_validate(self.result)


class Lease(BaseModel):
    """The right of one worker to work on one job, for as long as it beats.

    `token` is the fencing token: it grows with every claim, and a commit that carries an older
    one changes nothing.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    token: str
    attempt: int
    alone: bool
    spec: JobSpec
    tenant: str = LOCAL
    request_id: str = ""
    """Of the request that made the job."""
    waited_s: float = 0.0
    """From its acceptance to this claim."""
