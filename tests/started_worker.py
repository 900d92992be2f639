"""A worker that is expected to find at its start that it cannot work."""

import os
import subprocess
import sys
from collections.abc import Mapping

WITHIN_S = 120.0


def refused_start(role: str, environ: Mapping[str, str]) -> str:
    """What `python -m worker` says when it ends, in an environment with these variables."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", role],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot start" in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
