"""The record of a job in Redis, a hash of texts, read back as the job."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import redis

from core.job_specs import parse_spec
from core.jobs import Job
from core.progress import Progress

_read: dict[str, Callable[[str], Any]] = {
    "spec": parse_spec,
    "created_at": lambda ms: int(ms) / 1000,
    "started_at": lambda ms: int(ms) / 1000,
    "finished_at": lambda ms: int(ms) / 1000,
    "deadline": lambda ms: int(ms) / 1000,
    "progress": Progress.model_validate_json,
    "result": json.loads,
}


def read_job(client: redis.Redis, job_id: str) -> Job | None:
    """None: there is no such record, or none any more."""
    fields: Any = client.hgetall(f"job:{job_id}")
    return _job(fields) if fields else None


def read_jobs(client: redis.Redis, job_ids: Sequence[str]) -> list[Job | None]:
    """The job of each id, in their order and in one round trip."""
    pipe = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipe.hgetall(f"job:{job_id}")
    return [_job(fields) if fields else None for fields in pipe.execute()]


def _job(fields: dict[str, str]) -> Job:
    values = {name: _read.get(name, str)(text) for name, text in fields.items()}
    return Job(**values, cancelling="cancel" in fields)
