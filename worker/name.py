"""A worker's name is its own: whoever has the same name takes back what that one holds.

On one host, or rather in one run folder, a lock sees to that; elsewhere Redis tells who beats.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import redis
import structlog

from core.errors import Misconfigured, StoreUnavailable
from core.process_lock import HeldByAnother, exclusive
from core.redis_connection import connect
from core.settings import Settings
from core.workers import WorkerRoll

log = structlog.get_logger()

SILENT_S = 2.5
"""A worker that beat no later than this ago may live: each beats once a second."""
LOOK_EVERY_S = 0.1
BEATS = 2
"""To be seen of a worker that lives: the last one of an earlier life may come late."""
WAIT_FOR_REDIS_S = 1.0


@contextlib.contextmanager
def held(run_dir: Path, owner: str) -> Iterator[None]:
    """No other worker of this name starts meanwhile.

    Raises:
        Misconfigured: a worker of that name runs.
    """
    path = run_dir / f"{owner}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(exclusive(path))
        except HeldByAnother as error:
            raise Misconfigured(
                f"process {error.pid} is {owner} already, and two of one name would take each "
                "other's jobs; stop it, or choose another --name"
            ) from error
        except OSError as error:
            # A file system without locks: names are the operator's business there.
            log.warning("its name is not held", owner=owner, reason=error.strerror)
        yield


def look_for_namesake(settings: Settings, owner: str) -> None:
    """That no worker of this name beats elsewhere: two hosts, or containers, may be called alike.

    It takes no time unless a worker of this name beat a moment ago. While Redis does not answer
    nobody beats.

    Raises:
        Misconfigured: one does.
    """
    if settings.redis_url is None:
        return
    with (
        contextlib.suppress(StoreUnavailable, redis.RedisError, OSError),
        connect(settings.redis_url, retry_s=WAIT_FOR_REDIS_S) as client,
    ):
        if _beats(WorkerRoll(client), owner):
            raise Misconfigured(
                f"another worker is {owner}, on a host or in a container of the same name, and "
                "two of one name would take each other's jobs; give the host another name, or "
                "choose another --name"
            )


def _beats(roll: WorkerRoll, owner: str) -> bool:
    last, seen = roll.last_beat(owner), 0
    while last is not None and time.time() - last < SILENT_S and seen < BEATS:
        time.sleep(LOOK_EVERY_S)
        if (newer := roll.last_beat(owner)) != last:
            last, seen = newer, seen + 1
    return seen >= BEATS
