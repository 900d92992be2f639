"""Celery carries wakes: messages that say "there may be work", and nothing else.

A message that a worker has popped but not yet noted is gone when that worker dies, and no Celery
setting prevents it. So a wake may be lost, late or doubled at no cost: the job record is the
truth (`core/job_store.py`), and every process that sweeps sends missing wakes again.
"""

from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from core.errors import StoreUnavailable
from core.job_specs import Kind

TASK_OF_KIND: dict[Kind, str] = {
    "generation": "worker.drain_generations",
    "erasure": "worker.drain_erasures",
    "evaluation": "worker.drain_evaluations",
}

CELERY: dict[str, Any] = {
    # Wakes only: no results, and not acknowledged after they ran (worker/taking.py: nor before).
    "task_ignore_result": True,
    "task_acks_late": False,
    # One device, one task at a time.
    "worker_prefetch_multiplier": 1,
    # A wake that a busy worker has taken would not wake an idle one.
    "worker_disable_prefetch": True,
    # The child owns the device, and CUDA does not survive a fork.
    "worker_pool_start_method": "spawn",
    # A child imports torch before it says that it is up; the default of 4 s would kill it.
    "worker_proc_alive_timeout": 120.0,
    # On with Celery 6; with Redis it loses the running message.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {
        "visibility_timeout": 60,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A process killed while it sweeps would hold the others up for this long.
        "unacked_mutex_expire": 10,
        "health_check_interval": 10,
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
    },
    # A wake never holds up the answer to a client; the sweeper sends it again.
    "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_max": 0.2},
    "worker_hijack_root_logger": False,
    "task_routes": {task: {"queue": kind} for kind, task in TASK_OF_KIND.items()},
}


def celery_app(redis_url: str) -> Celery:
    app = Celery("trce", broker=_celery_url(redis_url), set_as_current=False)
    app.conf.update(CELERY)
    return app


def _celery_url(redis_url: str) -> str:
    """Kombu's spelling: unix:///path?db=1 -> redis+socket:///path?virtual_host=1."""
    if redis_url.startswith("unix://"):
        return redis_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")
    return redis_url


ENOUGH = 64
"""So many wakes in a queue wake every worker that is idle, and those that end meanwhile."""


class Wakes:
    """Sends wakes. Losing one is no loss, so `send` never raises; `waiting` may."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, kind: Kind) -> bool:
        """Whether the broker took it, or has enough of them.

        A worker that is busy takes none: while all are, each job would add one for ever. An idle
        worker takes one at once, so where many wait, nobody is idle for long.
        """
        try:
            if self.waiting(kind) < ENOUGH:
                self._app.send_task(TASK_OF_KIND[kind], queue=kind)
        except (StoreUnavailable, OperationalError, ConnectionError):
            return False
        return True

    def waiting(self, kind: Kind) -> int:
        """How many wakes lie in the queue that no worker has taken.

        Raises:
            StoreUnavailable.
        """
        try:
            with self._app.pool.acquire(block=True) as connection:
                # Kombu's own way asks for a list of each priority, and raises where none is; wakes
                # have none. It is asked for each job.
                return int(connection.default_channel.client.llen(kind))
        except (OperationalError, ConnectionError, redis.RedisError) as error:
            raise StoreUnavailable("the broker does not answer") from error
