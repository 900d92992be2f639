"""`python -m tests.chaos`: try for a long time to make the service break its promises.

Exits with 1 when one was broken, or when a goal was not reached, and says which.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.goals import Goals
from tests.chaos.report import table, write_summary
from tests.chaos.run import run

OUT = Path("build/chaos")
MAX_COMPLAINTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    for name, default, what in [
        ("jobs", 10_000, "to be accepted"),
        ("worker-kills", 200, "of workers and of the processes in them that draw"),
        ("erasures", 40, "of the smallest kind, half of them with stage 2"),
        ("trainer-kills", 20, "of trainings and of the workers that run them"),
        ("broker-kills", 50, ""),
        ("freezes", 50, "of workers, heartbeats, broker and service, for longer than a lease"),
        ("others", 10, "of each other kind: service killed, wakes dropped, disk full ..."),
        ("restarts", 4, "of everything: half of them Ctrl-C, half kill -9"),
        ("seed", 1, "the same plan for the same seed"),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (%(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="of load; a tenth more for faults that found nothing to strike (%(default)s)",
    )
    given = parser.parse_args()
    # So that namespace, file system and processes are cleared away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    console = Console(highlight=False)
    # Not below the working folder: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        done = run(
            Path(folder),
            seed=given.seed,
            goals=Goals(given.jobs, given.erasures, _faults(given), given.minutes),
            tell=console.print,
            keep=OUT / "logs",
        )
    write_summary(done, OUT)
    console.print(table(done))
    for complaint in done.verdict.complaints()[:MAX_COMPLAINTS]:
        console.print(complaint)
    for goal in done.missed:
        console.print(f"not reached: {goal}")
    sys.exit(0 if done.verdict.clean and not done.missed else 1)


def _faults(given: argparse.Namespace) -> dict[str, int]:
    """How often each kind is to happen."""
    return {
        "pool child killed": given.worker_kills - given.worker_kills // 2,
        "worker killed": given.worker_kills // 2,
        "training killed": given.trainer_kills - given.trainer_kills // 2,
        "trainer worker killed": given.trainer_kills // 2,
        "broker killed": given.broker_kills,
        "worker frozen": given.freezes - 3 * (given.freezes // 5),
        "heartbeat frozen": given.freezes // 5,
        "broker frozen": given.freezes // 5,
        "service frozen": given.freezes // 5,
        "service killed": given.others,
        "wakes dropped": given.others,
        "network cut": given.others,
        "disk filled": given.others,
        "everything stopped": given.restarts // 2,
        "everything killed": given.restarts - given.restarts // 2,
    }


if __name__ == "__main__":
    main()
