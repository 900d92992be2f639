"""The Celery application of a worker: a one-line task for each kind of job, and what surrounds it.

Celery's parent process never imports torch; it answers `inspect ping` while the child is busy,
starts a new child when one dies, and runs the sweeper, which also tidies. The child (started by
spawn, so CUDA begins clean) owns the device and drains.
"""

import os
import time
from collections.abc import Callable
from typing import Any, cast, get_args

import structlog
from celery import signals

from core.checkup.check import insist
from core.children import die_with_parent
from core.errors import Misconfigured
from core.installation import leavings_of, open_serving_registry
from core.job_store import JobStore
from core.lasting import spare_the_collector
from core.queue import TASK_OF_KIND, Wakes, celery_app
from core.redis_connection import connect
from core.startup import given_settings
from core.sweeper import Sweeper
from core.telemetry import configure_logs
from core.terms import terms
from worker.clock import look_at_clock
from worker.marks import drain_mark, failure_mark
from worker.replacing import or_be_replaced
from worker.roles import KINDS_OF_ROLE, Role
from worker.taking import TakenForGood
from worker.tidying import Tidying
from worker.trainer_leavings import TrainerLeavings

log = structlog.get_logger()

WARM_UP_S = 3600.0
"""How long a child that loads and compiles may take until it says that it is up."""

settings = given_settings()
if settings.redis_url is None:
    raise Misconfigured("set REDIS_URL; on one machine, `trce up` starts a broker and the workers")
app = celery_app(settings.redis_url)
if settings.warm_up:
    app.conf.worker_proc_alive_timeout = WARM_UP_S
app.steps["consumer"].add(TakenForGood)
wakes = Wakes(app)

BROKER_RESTART_S = 30.0
"""How long a worker waits for a broker that went away before it lets go of its work."""

BEGIN_AGAIN_S = 2.0

ROLE = os.environ.get("TRCE_ROLE", "")
OWNER = os.environ.get("TRCE_OWNER", "")

# Set in the child by `begin`; Celery calls tasks as functions, so they find it here.
_drain: Callable[[], None] | None = None


@app.task(name=TASK_OF_KIND["generation"])
def drain_generations() -> None:
    _work()


@app.task(name=TASK_OF_KIND["erasure"])
def drain_erasures() -> None:
    _work()


@app.task(name=TASK_OF_KIND["evaluation"])
def drain_evaluations() -> None:
    _work()


def _work() -> None:
    assert _drain is not None
    or_be_replaced(
        _drain,
        mark=failure_mark(settings.run_dir, OWNER),
        draining=drain_mark(settings.run_dir, OWNER).exists,
        end=os._exit,
    )


@signals.setup_logging.connect
def log_as_we_do(**_: Any) -> None:
    configure_logs()


@signals.worker_process_init.connect
def begin(**_: Any) -> None:
    """In the child: take back what its predecessor held, then assemble the worker."""
    # An orphan would draw on, and claim, until somebody notices; Celery tells it nothing.
    die_with_parent()
    try:
        _begin()
    except Misconfigured as error:
        log.error("cannot begin", reason=str(error))  # noqa: TRY400  (it is said whole)
        time.sleep(BEGIN_AGAIN_S)
        os._exit(1)
    except Exception:
        # Celery would log this and use the child all the same: it would eat wakes and draw
        # nothing. It is better gone; Celery starts another, slowly if this goes on.
        log.exception("cannot begin")
        time.sleep(BEGIN_AGAIN_S)
        os._exit(1)


def _begin() -> None:
    global _drain  # noqa: PLW0603
    assert ROLE in get_args(Role)
    role = cast(Role, ROLE)
    # First: importing torch takes seconds, in which another worker can have these jobs.
    jobs = _store(retry_s=BROKER_RESTART_S)
    if again := jobs.leasing.take_back(OWNER):
        log.warning("took back", owner=OWNER, jobs=again)
    # Once more, as Redis may have come after this worker.
    insist(look_at_clock(settings, retry_s=BROKER_RESTART_S))
    for kind in KINDS_OF_ROLE[role]:
        if jobs.counts.queued(kind):
            wakes.send(kind)

    from worker.runtime import assemble  # noqa: PLC0415

    _drain = assemble(role, OWNER, settings, jobs)
    spare_the_collector()


@signals.worker_ready.connect
def sweep(**_: Any) -> None:
    """In the parent."""
    jobs = _store(retry_s=1)
    Sweeper(jobs, wakes, tuple(TASK_OF_KIND), tidy=_tidying(jobs)).start()


def _tidying(jobs: JobStore) -> Tidying:
    def open_of_jobs() -> TrainerLeavings:
        return TrainerLeavings(jobs, open_serving_registry(settings), settings.checkpoints_dir)

    return Tidying(leavings_of(settings), open_of_jobs if ROLE == "trainer" else None)


@signals.worker_shutting_down.connect
def tell_child(**_: Any) -> None:
    """In the parent: the child looks for this mark between steps."""
    mark = drain_mark(settings.run_dir, OWNER)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _store(*, retry_s: float) -> JobStore:
    assert settings.redis_url is not None
    return JobStore(connect(settings.redis_url, retry_s=retry_s), terms(settings))
