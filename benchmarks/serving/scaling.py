"""4 and 16 simulated GPUs against one, over one Redis; and what 2,000 jobs cost the processor.

All jobs are submitted over HTTP first. One worker draws for a while, then others join it, and in
the end all together draw what is left. Counted are the pictures of a window of time.
"""

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil

from benchmarks.stack import Stack, clean_environment, running_stack
from core.children import start_child, stop_child
from core.job_store import JobStore
from core.redis_connection import connect

JOBS = 2000
SIZES = (1, 4, 16)
"""Workers. Each is several processes: 64 of them leave two cores no time to draw."""
STEPS = (8, 10, 12)
FULL = 16
"""Pictures that a worker draws at a time, TRCE_BATCH_ROWS."""
NEARLY = 0.9
"""Between two steps some are done, and their places empty."""
WINDOW_S = {1: 40.0, 4: 30.0, 16: 20.0}
LONGEST_S = 600.0
ENV = {"TRCE_MAX_QUEUED_GENERATIONS": "5000", "TRCE_MAX_OPEN_JOBS_PER_TENANT": "5000"}


def measure() -> dict[str, Any]:
    with running_stack(workers=0, **ENV) as stack, contextlib.ExitStack() as workers:
        assert stack.settings.redis_url is not None
        processes = service_and_redis(stack)
        before_s = cpu_s(processes)
        submit(stack.url)
        submitted_s = cpu_s(processes)
        rates: dict[int, float] = {}
        running = 0
        jobs = JobStore(workers.enter_context(connect(stack.settings.redis_url, retry_s=60)), {})
        for size in SIZES:
            workers.enter_context(simulated_workers(stack, size - running, first=running))
            rates[size] = pictures_per_s(jobs, size)
            running = size
        wait_until_done(jobs)
        spent_s = cpu_s(processes)
    linear = {f"scaling_{size}": rates[size] / size / rates[1] for size in SIZES[1:]}
    return linear | {
        "cpu_s_per_job": (spent_s - before_s) / JOBS,
        "detail": {
            "pictures_per_s": {str(size): rate for size, rate in rates.items()},
            "cpu_s_per_submission": (submitted_s - before_s) / JOBS,
        },
    }


def service_and_redis(stack: Stack) -> list[psutil.Process]:
    children = psutil.Process(stack.pid).children(recursive=True)
    assert len(children) == 2, [child.cmdline() for child in children]  # noqa: PLR2004
    return children


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (p.cpu_times() for p in processes))


def submit(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(JOBS):
            body = {
                "prompt": f"a picture of apple number {number % 50}",
                "model": "emoji",
                "num_inference_steps": STEPS[number % len(STEPS)],
                "seed": number,
            }
            accepted = client.post("/v1/generations", json=body)
            assert accepted.status_code == http.client.ACCEPTED, accepted.text


@contextlib.contextmanager
def simulated_workers(stack: Stack, count: int, *, first: int, **env: str) -> Iterator[None]:
    """
    Args:
        first: the first one's number.
        env: further settings, as TRCE_BATCH_ROWS="4".
    """
    assert stack.settings.redis_url is not None
    where = {
        "REDIS_URL": stack.settings.redis_url,
        "TRCE_DATA_DIR": str(stack.settings.data_dir),
        "TRCE_SERVE_UNERASED_BASE": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "benchmarks.serving.simulated_workers"]
    command += [str(count), "--first", str(first)]
    log_file = stack.settings.data_dir / "simulated.log"
    with log_file.open("ab") as log:
        process = start_child(
            command, env=clean_environment() | where | env, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        stop_child(process, grace_s=60)


def pictures_per_s(jobs: JobStore, workers: int) -> float:
    """Of a window that begins when every worker has had its hands full, and has drawn.

    Its first step waits for the model to be loaded.
    """
    deadline = time.monotonic() + LONGEST_S
    while JOBS - drawn(jobs) - jobs.counts.queued("generation") < NEARLY * workers * FULL:
        assert time.monotonic() < deadline, "the workers do not draw"
        time.sleep(0.2)
    full = drawn(jobs)
    while drawn(jobs) - full < workers * FULL:
        assert time.monotonic() < deadline, "the workers draw nothing"
        time.sleep(0.2)
    began, done = time.monotonic(), drawn(jobs)
    time.sleep(WINDOW_S[workers])
    assert jobs.counts.queued("generation"), (
        "the jobs ran out before the window ended; submit more"
    )
    return (drawn(jobs) - done) / (time.monotonic() - began)


def drawn(jobs: JobStore) -> int:
    return sum(jobs.counts.outcomes("generation").values())


def wait_until_done(jobs: JobStore) -> None:
    deadline = time.monotonic() + LONGEST_S
    while drawn(jobs) < JOBS:
        assert time.monotonic() < deadline, f"{JOBS - drawn(jobs)} jobs are left"
        time.sleep(0.2)
    assert jobs.counts.outcomes("generation")["succeeded"] == JOBS
