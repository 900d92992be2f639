"""Files by which the processes of one worker, and who watches them, tell each other things."""

from pathlib import Path

SHUTTING_DOWN = "its worker is shutting down"
"""Why jobs go back while there is a drain mark; no attempt is counted."""

LATE = "its deadline passed while it was drawn"


def beat_file(run_dir: Path, owner: str) -> Path:
    """Touched with every beat: a container's health check looks at its age."""
    return run_dir / f"{owner}.alive"


def drain_mark(run_dir: Path, owner: str) -> Path:
    """While this file exists, the worker is shutting down.

    Celery tells only its parent process of a SIGTERM; the child, which works, looks here.
    """
    return run_dir / f"{owner}.draining"


def failure_mark(run_dir: Path, owner: str) -> Path:
    """While this file exists, the worker's last process failed; in it, how long it waited then."""
    return run_dir / f"{owner}.failed"
