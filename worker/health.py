"""`python -m worker.health inference`: exits with 0 while the worker in this container beats."""

import os
import socket
import sys
import time
from pathlib import Path

from worker.marks import beat_file

FRESH_S = 15.0
"""Beats come once a second (worker/heartbeat.py)."""


def main() -> None:
    role = sys.argv[1]
    run_dir = Path(os.environ.get("TRCE_DATA_DIR", "data")) / "run"
    file = beat_file(run_dir, f"{role}-0@{socket.gethostname()}")
    try:
        age_s = time.time() - file.stat().st_mtime
    except OSError:
        sys.exit(f"{file} is not there: the worker has not begun")
    if age_s > FRESH_S:
        sys.exit(f"{file} is {age_s:.0f} s old: the worker has stopped beating")


if __name__ == "__main__":
    main()
