"""What a worker may be for, and the kinds of job it takes."""

from typing import Literal

from core.job_specs import Kind

Role = Literal["inference", "trainer"]
KINDS_OF_ROLE: dict[Role, tuple[Kind, ...]] = {
    "inference": ("generation",),
    "trainer": ("erasure", "evaluation"),
}
