"""How a process that failed makes room for a new one, whose device begins afresh.

After a failed kernel launch every further call to CUDA fails, in this process alone. Celery starts
another when this one ends; how long it waited is in a file, so that the next one waits longer.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from core.errors import StoreUnavailable
from worker.patience import Patience

log = structlog.get_logger()

LOOK_EVERY_S = 0.1


def or_be_replaced(
    drain: Callable[[], None],
    *,
    mark: Path,
    draining: Callable[[], bool],
    end: Callable[[int], object],
) -> None:
    """Drain; after an error that leaves the process in doubt, wait, and end it.

    Args:
        mark: remembers from one process to the next how long the last one waited.
        draining: told to shut down: nobody is replaced, so nothing is waited for.
        end: ends the process at once, such as `os._exit`.

    Raises:
        StoreUnavailable: the process is in no doubt.
    """
    try:
        drain()
    except StoreUnavailable:
        raise
    except Exception:
        log.exception("cannot go on")
        patience = Patience(pause_s=_read(mark))
        patience.failed()
        with contextlib.suppress(OSError):  # a full disk: then each waits like the first
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(str(patience.pause_s))
        while patience.waits and not draining():
            time.sleep(LOOK_EVERY_S)
        end(1)
    else:
        mark.unlink(missing_ok=True)


def _read(mark: Path) -> float:
    try:
        return float(mark.read_text())
    except (OSError, ValueError):
        return 0.0
