"""The record of a job in Redis, a hash of texts, read back as the job."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import redis
from pydantic import ValidationError

from core.errors import JobUnreadable
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
    """None: there is no such record, or none any more.

    Raises:
        JobUnreadable: a newer version of this program has written it.
    """
    fields: Any = client.hgetall(f"job:{job_id}")
    return _job(job_id, fields) if fields else None


def read_jobs(client: redis.Redis, job_ids: Sequence[str]) -> list[Job | None]:
    """The job of each id, in their order and in one round trip.

    None: it is gone, or one that `read_job` cannot read; one such job hides no others.
    """
    pipe = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipe.hgetall(f"job:{job_id}")
    return [_readable(one, fields) for one, fields in zip(job_ids, pipe.execute(), strict=True)]


def _readable(job_id: str, fields: dict[str, str]) -> Job | None:
    try:
        return _job(job_id, fields) if fields else None
    except JobUnreadable:
        return None


def _job(job_id: str, fields: dict[str, str]) -> Job:
    try:
        values = {name: _read.get(name, str)(text) for name, text in fields.items()}
        return Job(**values, cancelling="cancel" in fields)
    except ValidationError as error:
        raise JobUnreadable(
            f"job {job_id} is not one that this version understands; upgrade what you asked"
        ) from error
