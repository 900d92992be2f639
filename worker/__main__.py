"""`python -m worker inference` or `python -m worker trainer`: one worker, until SIGTERM."""

import argparse
import contextlib
import os
import socket

from celery import Celery

from core.checkup.check import insist
from core.checkup.compiler import check_compiler
from core.checkup.device import check_torch
from core.settings import Settings
from core.startup import read_settings, start
from worker import huge_pages
from worker.clock import look_at_clock
from worker.marks import drain_mark, failure_mark
from worker.name import held, look_for_namesake
from worker.pictures import look_at_pictures
from worker.roles import KINDS_OF_ROLE, Role


def _app() -> Celery:
    from worker.app import app  # noqa: PLC0415  (reads the environment that `main` sets)

    return app


def _try_credentials(settings: Settings) -> None:
    """Raises Misconfigured, where a pair is set that cannot sign."""
    pair = settings.c2pa_certificates, settings.c2pa_key
    if pair == (None, None):
        return
    from worker.content_credentials import ContentCredentials  # noqa: PLC0415  (most have none)

    ContentCredentials.load(*pair)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Run one worker of the text-to-image service.",
        epilog="Settings come from the environment (REDIS_URL, TRCE_DATA_DIR ...); "
        "see .env.example.",
    )
    parser.add_argument(
        "role", choices=list(KINDS_OF_ROLE), help="draw pictures, or erase and evaluate"
    )
    parser.add_argument(
        "--name",
        default="0",
        help="tells workers of one role and host apart; stable over restarts, so that a restarted "
        "worker takes back at once what it held (default: %(default)s)",
    )
    arguments = parser.parse_args()
    owner = f"{arguments.role}-{arguments.name}@{socket.gethostname()}"
    os.environ["TRCE_ROLE"] = arguments.role
    os.environ["TRCE_OWNER"] = owner
    huge_pages.ask(os.environ)
    settings = start(lambda: read_settings(arguments.role))
    with contextlib.ExitStack() as kept:
        start(lambda: kept.enter_context(held(settings.run_dir, owner)))
        _run(arguments.role, owner, settings)


def _run(role: Role, owner: str, settings: Settings) -> None:
    gpus = settings.trainer_processes if role == "trainer" else 1
    if settings.device.startswith("cuda") or gpus > 1:
        # Otherwise it would come up, be counted as ready, and fail every job.
        start(lambda: insist([check_torch(settings.device, gpus_needed=gpus)]))
    start(lambda: insist(look_at_clock(settings)))
    start(lambda: look_for_namesake(settings, owner))
    if role == "inference":
        start(lambda: insist(look_at_pictures(settings)))
        start(lambda: _try_credentials(settings))
        if settings.compile_unet:
            start(lambda: insist([check_compiler(settings.device)]))
    # Marks left by the last life are not for this one.
    drain_mark(settings.run_dir, owner).unlink(missing_ok=True)
    failure_mark(settings.run_dir, owner).unlink(missing_ok=True)
    app = start(_app)

    queues = ",".join(KINDS_OF_ROLE[role])
    app.worker_main(
        [
            *("worker", "--pool", "prefork", "--concurrency", "1"),
            *("--queues", queues, "--hostname", owner, "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle"),
        ]
    )


if __name__ == "__main__":
    main()
