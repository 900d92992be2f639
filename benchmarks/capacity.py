"""What a generation costs Redis; `make bench-capacity`, build/bench/capacity.json.

A real server with its append-only file, the real scripts, no drawing: the life of a job as service
and worker make it, with three progress reports and a read by the client. No claim about time.
"""

import json
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

import redis

from cli.stack.broker import broker_command, broker_url, wait_until_ready
from core.job_store import JobStore
from core.progress import Progress
from core.redis_connection import connect
from core.settings import Settings
from core.specs import GenerationSpec
from core.terms import terms

JOBS = 2000
REPORTS = 3
A_DAY = 1_000_000
OUT = Path("build/bench/capacity.json")
SPEC = GenerationSpec(
    prompt="a watercolour of a lighthouse at dusk, gulls above the waves, soft light",
    model="emoji-weapons-1a2b3c4d",
    width=512,
    height=512,
    seed=7,
)


def measure(folder: Path) -> dict[str, Any]:
    command, url = broker_command(folder), broker_url(folder)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(url, within_s=20)
        with connect(url) as client:
            jobs = JobStore(
                client, terms(Settings(_env_file=None, max_open_jobs_per_tenant=10**6))
            )
            # Scripts are loaded, keys that are made once are there.
            _live(jobs, 20)
            before = _counts(client, folder)
            _live(jobs, JOBS)
            after = _counts(client, folder)
    finally:
        server.terminate()
        server.wait()
    return {name: (after[name] - before[name]) / JOBS for name in before}


def _live(jobs: JobStore, count: int) -> None:
    """Accept, claim, report, commit and read `count` jobs."""
    for _ in range(count):
        job_id = uuid.uuid4().hex
        jobs.submit(job_id, SPEC, queue_class=SPEC.model, request_id=uuid.uuid4().hex)
        (lease,) = jobs.leasing.claim(
            "generation", "inference-0@bench", slots=8, lease_s=15, idle=True
        )
        for done in range(REPORTS):
            jobs.leasing.report(lease, Progress(stage="denoising", done=done, total=REPORTS))
        key = f"generations/{job_id}/{lease.token}/0.png"
        image = {"key": key, "seed": 7, "finish_reason": "stop", "finding": None, "reason": None}
        jobs.leasing.succeed(lease, {"model": SPEC.model, "images": [image]})
        jobs.get(job_id)


def _counts(client: redis.Redis, folder: Path) -> dict[str, float]:
    info: Any = client.info()
    size = sum(file.stat().st_size for file in folder.rglob("*.aof"))
    return {
        "memory_bytes": info["used_memory"],
        "calls": info["total_commands_processed"],
        "aof_bytes": size,
        "sent_to_redis_bytes": info["total_net_input_bytes"],
        "sent_by_redis_bytes": info["total_net_output_bytes"],
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        each = measure(Path(folder))
    result = {"jobs": JOBS, "each": each, "a_day": {k: v * A_DAY for k, v in each.items()}}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'':<22}{'a generation':>14}{'a million a day':>18}")
    for name, value in each.items():
        print(f"{name:<22}{value:>14.1f}{value * A_DAY:>18.3g}")


if __name__ == "__main__":
    main()
