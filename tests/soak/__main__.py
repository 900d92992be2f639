"""`python -m tests.soak`: an hour of load, and the slope of every process's memory.

Writes build/soak/summary.json, and samples.json: each process's, in seconds and MiB. Exits with 1
when a request failed or the memory of a process grew.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from core.importing import import_base
from core.installation import open_registry
from core.settings import Settings
from core.signing import Signer
from tests.erased_models import add_erased
from tests.live_stack import Stack
from tests.soak.judgement import JUDGED_FROM_MINUTES, MOST_MIB_PER_HOUR, complaints
from tests.soak.load import BASE, Load
from tests.soak.memory import Growth, Memory
from tests.tiny_model import make_model
from worker.shelf import MAX_VARIANTS

OUT = Path("build/soak")
LOOK_EVERY_S = 5.0
ERASE_EVERY_S = 180.0
MODELS = MAX_VARIANTS
"""Erased ones that there are from the beginning. With their base they are one more than a worker
keeps at hand: it loads models and lets go of others all the time, and is to hold the same."""
IDLE_SHARE = 0.2
"""Of the time, in which workers have pauses. It is within the warm-up of `tests.soak.memory`: what
is judged has one kind of load."""
ENVIRONMENT = {
    # Records and pictures expire while it runs, so that what they hold is given back, too.
    "TRCE_KEEP_GENERATIONS_S": "60",
    "TRCE_KEEP_ERASURES_S": "120",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of load (%(default)s)")
    parser.add_argument(
        "--slope",
        type=float,
        default=MOST_MIB_PER_HOUR,
        help="of a process's memory, MiB an hour, beyond which it fails (%(default)s)",
    )
    given = parser.parse_args()
    # So that the stack is stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    minutes = given.minutes
    console = Console(highlight=False)
    # Not below the working folder: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        stack = Stack(Path(folder) / "data", "--inference-workers", "2", **ENVIRONMENT)
        models = _make_models(stack.data_dir)
        stack.start()
        try:
            load, memory = _soak(stack, models, minutes * 60)
        finally:
            stack.interrupt()
            stack.http.close()
    growths = memory.growths()
    grown = complaints(growths, minutes=minutes, most_mib_per_hour=given.slope)
    OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "minutes": minutes,
        "requests": load.drawn,
        "listened_to": load.heard,
        "failed": len(load.failed),
        "connections_broken": len(load.broken),
        "models": len(load.models),
        "models_erased": load.erased,
        "most_mib_per_hour": given.slope,
        "grown": grown,
        "processes": [
            asdict(one) | {"slope_percent_per_hour": one.slope_percent_per_hour} for one in growths
        ],
    }
    (OUT / "summary.json").write_text(json.dumps(document, indent=2) + "\n")
    (OUT / "samples.json").write_text(json.dumps(memory.samples) + "\n")
    console.print(_table(growths))
    console.print(
        f"{load.drawn} requests answered and {load.heard} jobs listened to "
        f"in {minutes:g} minutes, {len(load.failed)} failed, "
        f"{len(load.broken)} connections broke; {load.erased} models erased"
    )
    for failure in load.failed[:5]:
        console.print(failure)
    if minutes < JUDGED_FROM_MINUTES:
        console.print(f"memory is judged from {JUDGED_FROM_MINUTES:g} minutes on")
    for complaint in grown:
        console.print(complaint)
    sys.exit(1 if load.failed or grown else 0)


def _soak(stack: Stack, models: Sequence[str], seconds: float) -> tuple[Load, Memory]:
    load, memory = Load(stack, models), Memory()
    load.start()
    try:
        erase_at, until = time.monotonic() + ERASE_EVERY_S, time.monotonic() + seconds
        saturate_at = time.monotonic() + IDLE_SHARE * seconds
        while time.monotonic() < until:
            if time.monotonic() > saturate_at:
                saturate_at = math.inf
                load.saturate()
            memory.look([stack.process, *stack.process.children(recursive=True)])
            if time.monotonic() > erase_at:
                load.erase(steering=True)
                erase_at = time.monotonic() + ERASE_EVERY_S
            time.sleep(LOOK_EVERY_S)
    finally:
        load.stop()
    return load, memory


def _make_models(data_dir: Path) -> list[str]:
    """The base, and as many erased ones as a worker keeps; their ids."""
    settings = Settings(_env_file=None, data_dir=data_dir)
    signer = Signer.load_or_create(settings.keys_dir)
    settings.models_dir.mkdir(parents=True)
    registry = open_registry(settings)
    with tempfile.TemporaryDirectory() as made:
        base = import_base(make_model(Path(made)), BASE, registry, signer)
    erased = [f"{BASE}-{number}" for number in range(MODELS)]
    for seed, model_id in enumerate(erased):
        add_erased(model_id, base, registry, signer, seed=seed, changes_weights=seed % 2 == 1)
    return [BASE, *erased]


def _table(growths: list[Growth]) -> str:
    lines = [
        "| process | samples | first third, MiB | last third, MiB | slope, MiB/h | slope, %/h |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.process} | {one.samples} | {one.first_mib:.1f} | {one.last_mib:.1f} | "
        f"{one.slope_mib_per_hour:+.1f} | {one.slope_percent_per_hour:+.1f} |"
        for one in growths
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
