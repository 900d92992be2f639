"""What a client sees of the telling of a job's end."""

from typing import Self

from pydantic import BaseModel

from core.jobs import Job


class Told(BaseModel):
    webhook: str
    delivered: bool
    tries: int
    problem: str | None
    """Why the last try failed."""

    @classmethod
    def of(cls, job: Job) -> Self | None:
        if job.webhook is None:
            return None
        return cls(
            webhook=job.webhook,
            delivered=job.webhook_delivered,
            tries=job.webhook_tries,
            problem=job.webhook_problem or None,
        )
