"""`Prefer: wait=N`: hold the answer back until a job has ended, for at most N seconds."""

import asyncio
import re
import threading
import time

from fastapi.concurrency import run_in_threadpool

from core.errors import StoreUnavailable
from core.job_store import JobStore
from core.jobs import Job

MAX_WAIT_S = 60
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25
WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)


def wait_s(prefer: str | None) -> int:
    """How long a client's Prefer header (RFC 7240) asks to wait, at most MAX_WAIT_S; 0: not.

    A preference that makes no sense is ignored, as the RFC wants it.
    """
    found = WAIT.search(prefer or "")
    return min(int(found[1]), MAX_WAIT_S) if found else 0


async def ended(jobs: JobStore, job: Job, *, within_s: float, closing: threading.Event) -> Job:
    """The job as it is when it has ended, or when `within_s` seconds are over.

    Waits without holding a thread, so many may wait. The job is accepted already: when the store
    goes away meanwhile, or this process is `closing`, the answer is what was last known.
    """
    deadline, pause_s = time.monotonic() + within_s, FIRST_PAUSE_S
    while not job.state.ended and not closing.is_set():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
        try:
            job = await run_in_threadpool(jobs.get, job.id)
        except StoreUnavailable:
            return job
    return job
