"""`python -m worker inference` or `python -m worker trainer`: one worker, until SIGTERM."""

import argparse
import os
import socket

from core.settings import Settings
from worker.marks import drain_mark
from worker.roles import KIND_OF_ROLE


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Run one worker of the text-to-image service.",
        epilog="Settings come from the environment (REDIS_URL, TRCE_DATA_DIR ...); "
        "see .env.example.",
    )
    parser.add_argument(
        "role", choices=list(KIND_OF_ROLE), help="draw pictures, or run erasure jobs"
    )
    parser.add_argument(
        "--name",
        help="stable over restarts and unique per host, so that a restarted worker takes back "
        "at once what it held (default: ROLE-0)",
    )
    arguments = parser.parse_args()
    owner = f"{arguments.name or arguments.role + '-0'}@{socket.gethostname()}"
    os.environ["TRCE_ROLE"] = arguments.role
    os.environ["TRCE_OWNER"] = owner
    # A mark left by the last shutdown is not for this life.
    drain_mark(Settings().run_dir, owner).unlink(missing_ok=True)

    from worker.app import app  # noqa: PLC0415  (reads the environment set above)

    queue = KIND_OF_ROLE[arguments.role]
    app.worker_main(
        [
            *("worker", "--pool", "prefork", "--concurrency", "1"),
            *("--queues", queue, "--hostname", owner, "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle"),
        ]
    )


if __name__ == "__main__":
    main()
