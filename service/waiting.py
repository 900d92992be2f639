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
LOOKS_EVERY_S = 10.0
"""At the job itself, in case that nobody was told."""
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
    deadline_s = time.monotonic() + within_s

    def is_over() -> bool:
        return closing.is_set() or (gone is not None and gone.done())

    with endings.of(job.id) as told:
        if gone is not None:
            gone.add_done_callback(lambda _: told.set())
        while not job.state.ended and not is_over():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), min(LOOKS_EVERY_S, left_s))
            if is_over():
                break
            # What is told from here on is for the next look.
            told.clear()
            try:
                job = await run_in_threadpool(jobs.get, job.id)
            except StoreUnavailable:
                return job
    return job
