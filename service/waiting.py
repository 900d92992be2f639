"""`Prefer: wait=N`: hold the answer back until a job has ended, for at most N seconds."""

import asyncio
import contextlib
import re
import threading
import time

from fastapi.concurrency import run_in_threadpool

from core.errors import StoreUnavailable
from core.job_store import JobStore
from core.jobs import Job
from service.endings import Endings

MAX_WAIT_S = 60
LOOKS_EVERY_S = 1.0
"""In case that nobody was told; and how soon a process that is to close lets go."""
WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)


def wait_s(prefer: str | None) -> int:
    """How long a client's Prefer header (RFC 7240) asks to wait, at most MAX_WAIT_S; 0: not.

    A preference that makes no sense is ignored, as the RFC wants it.
    """
    found = WAIT.search(prefer or "")
    return min(int(found[1]), MAX_WAIT_S) if found else 0


async def ended(
    jobs: JobStore, endings: Endings, job: Job, *, within_s: float, closing: threading.Event
) -> Job:
    """The job as it is when it has ended, or when `within_s` seconds are over.

    Waits without holding a thread, so many may wait. The job is accepted already: when the store
    goes away meanwhile, or this process is `closing`, the answer is what was last known.
    """
    deadline = time.monotonic() + within_s
    with endings.of(job.id) as told:
        while not job.state.ended and not closing.is_set():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), min(LOOKS_EVERY_S, left_s))
            try:
                job = await run_in_threadpool(jobs.get, job.id)
            except StoreUnavailable:
                return job
            told.clear()
    return job
