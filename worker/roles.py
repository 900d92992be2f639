"""What a worker may be for, and the kind of job it takes."""

from typing import Literal

from core.job_store import Kind

Role = Literal["inference", "trainer"]
KIND_OF_ROLE: dict[Role, Kind] = {"inference": "generation", "trainer": "erasure"}
