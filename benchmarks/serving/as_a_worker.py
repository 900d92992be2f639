"""Figures that a process of its own measures, with threads and memory as a worker's.

glibc is told of huge pages when a program starts, so whoever measures cannot become one.
"""

import json
import subprocess
import sys
from typing import Any

from benchmarks.stack import worker_environment


def measured(module: str) -> dict[str, Any]:
    """What `python -m module` prints as JSON, run with one thread of OpenMP and in huge pages."""
    said = subprocess.run(
        [sys.executable, "-m", module],
        env=worker_environment(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    figures: dict[str, Any] = json.loads(said)
    return figures
