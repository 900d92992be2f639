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
LOOKS_EVERY_S = 5.0
"""At the job itself, in case that nobody was told."""
LETS_GO_WITHIN_S = 1.0
"""When the process is to close."""
WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)


def wait_s(prefer: str | None) -> int:
    """How long a client's Prefer header (RFC 7240) asks to wait, at most MAX_WAIT_S; 0: not.

    A preference that makes no sense is ignored, as the RFC wants it.
    """
    found = WAIT.search(prefer or "")
    return min(int(found[1]), MAX_WAIT_S) if found else 0


async def ended(
    jobs: JobStore,
    endings: Endings,
    job: Job,
    *,
    within_s: float,
    closing: threading.Event,
    gone: "asyncio.Future[None] | None" = None,
) -> Job:
    """The job as it is when it has ended, or when `within_s` seconds are over.

    Waits without holding a thread, so many may wait. The job is accepted already: when the store
    goes away meanwhile, or this process is `closing`, the answer is what was last known.

    Args:
        gone: is done when the client has gone, and nobody needs to wait any longer.
    """
    looked_s = time.monotonic()
    deadline_s = looked_s + within_s
    with endings.of(job.id) as told:
        if gone is not None:
            gone.add_done_callback(lambda _: told.set())
        while not job.state.ended and not closing.is_set() and not (gone and gone.done()):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), min(LETS_GO_WITHIN_S, left_s))
            now_s = time.monotonic()
            if not told.is_set() and now_s < min(deadline_s, looked_s + LOOKS_EVERY_S):
                continue
            looked_s = now_s
            # What is told from here on is for the next look.
            told.clear()
            try:
                job = await run_in_threadpool(jobs.get, job.id)
            except StoreUnavailable:
                return job
    return job
