"""`make bench-gate`: what it costs to check a model while it is loaded; build/bench/gate.json.

The same model is loaded in turns by the usual loaders, by ours without a manifest, and by ours
with every file held against one, so that what else the machine does hits all. The usual loaders
map files and leave the reading for later; here their tensors are copied once, as whoever uses them
does. Files lie on the disk, as when a worker starts with its machine, or are in memory already,
where reading them costs least and checking the same. Memory is in huge pages and torch has one
thread, as in a worker; each load begins in memory that was just used (`benchmarks/memory.py`), and
what was loaded before is gone by then.

A worker checks a base while it draws already, as far as that can be left for later, and lets
nothing out before: how long that takes, with nothing drawn beside it, is a row of its own.

An erased model is loaded with its base, as by a worker that has neither, and without, as by one
that has the base, until drawing can begin; unchecked, its baked UNet is not read at all.

Ends with 1, and names it, where checking a model adds more than a fifth to a load from the disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.families import MIB, PrivateMemory
from benchmarks.gate_loads import (
    WAYS,
    base_load,
    checked_erased,
    checked_erased_alone,
    make_erased,
    unchecked_erased,
)
from benchmarks.memory import leave_memory, use_memory, weights_bytes
from benchmarks.stack import worker_environment
from core.settings import SHIPPED_MODELS

OUT = Path("build/bench/gate.json")
ROUNDS = {"emoji": 31, "sd15": 15}
DTYPES = {"emoji": torch.float32, "sd15": torch.float16}
"""As the files are, so that no conversion is measured."""
WITHIN = (sys.executable, "-m", "benchmarks.gate")
MOST = 1.2
PLACES = ("disk", "memory")
REST = "checked, what is left then"
JUDGED = ("checked to unchecked, disk", "checked to unchecked, with its base, disk")
"""Rows that may be no more than that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs=3, metavar=("WAY", "SIZE", "DIR"))
    options = parser.parse_args()
    # glibc is told of huge pages when a program starts.
    if (environment := worker_environment()) != os.environ:
        os.execve(sys.executable, [*WITHIN, *sys.argv[1:]], environment)  # noqa: S606  (itself)
    torch.set_num_threads(1)
    if options.memory:
        way, size, folder = options.memory
        print(json.dumps(_peak_bytes(base_load(way, DTYPES[size], Path(folder)))))
        return
    result: dict[str, Any] = {
        "emoji": _measured("emoji", SHIPPED_MODELS / "emoji"),
        "emoji, erased": _erased("emoji", SHIPPED_MODELS / "emoji"),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as place:
        _python("benchmarks.families", "--make", "sd15", f"{place}/base")
        result["sd15"] = _measured("sd15", Path(place) / "base")
        result["sd15, erased"] = _erased("sd15", Path(place) / "base")
    _table(result)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    dear = [
        f"{what}, {row}: {result[what][row]:.2f}"
        for what in (*ROUNDS, *(f"{size}, erased" for size in ROUNDS))
        for row in JUDGED
        if result[what].get(row, 0.0) > MOST
    ]
    if dear:
        sys.exit(f"more than {MOST}: " + "; ".join(dear))


def _measured(size: str, folder: Path) -> dict[str, float]:
    loads = {way: base_load(way, DTYPES[size], folder) for way in WAYS}
    seconds: dict[str, list[float]] = {}
    for turn in range(ROUNDS[size] + 1):
        for place in PLACES:
            for way, load in loads.items():
                _prepare(folder, place)
                began = time.perf_counter()
                loaded, left = load()
                done = time.perf_counter()
                for check in (*left.read, *left.unread):
                    check()
                end = time.perf_counter()
                del loaded, left
                if turn:  # the first fills caches
                    seconds.setdefault(f"{way}, {place}", []).append(done - began)
                    if way == "checked":
                        seconds.setdefault(f"{REST}, {place}", []).append(end - done)
    peaks = {
        way: json.loads(_python("benchmarks.gate", "--memory", way, size, str(folder)))
        for way in WAYS
    }
    return {
        "weights, MiB": weights_bytes(folder) / MIB,
        **_medians(seconds),
        **_ratios(seconds, "checked", "unchecked"),
        **_ratios(seconds, "checked at once", "unchecked"),
        **_ratios(seconds, "checked at once", "from_pretrained"),
        **{f"{way}, peak memory, MiB": peaks[way] / MIB for way in WAYS},
    }


def _erased(size: str, folder: Path) -> dict[str, float]:
    """Seconds to load an erased model of a base, and what checking it adds."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as place:
        registry = make_erased(folder, Path(place))
        for turn in range(ROUNDS[size] + 1):
            for where in PLACES:
                for loads in (unchecked_erased, checked_erased_alone, checked_erased):
                    _prepare(Path(place), where)
                    for way, taken in loads(registry, DTYPES[size]).items():
                        if turn:
                            seconds.setdefault(f"{way}, {where}", []).append(taken)
    return {
        **_medians(seconds),
        **_ratios(seconds, "checked", "unchecked", ", with its base"),
    }


def _prepare(folder: Path, place: str) -> None:
    use_memory(weights_bytes(folder))
    if place == "disk":
        leave_memory(folder)


def _medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {f"{way}, s": statistics.median(taken) for way, taken in seconds.items()}


def _ratios(
    seconds: dict[str, list[float]], one: str, other: str, what: str = ""
) -> dict[str, float]:
    return {
        f"{one} to {other}{what}, {place}": _ratio(
            seconds, f"{one}{what}, {place}", f"{other}{what}, {place}"
        )
        for place in PLACES
    }


def _ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    """The median over the rounds, in each of which both were measured one after the other."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def _peak_bytes(load: Callable[[], Any]) -> int:
    """Of memory that is this process's alone, above what it had before."""
    before = PrivateMemory()
    time.sleep(0.1)
    start = before.peak_bytes()
    during = PrivateMemory()
    kept = load()
    peak = during.peak_bytes() - start
    del kept
    return peak


def _python(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[-1]


def _table(result: dict[str, Any]) -> None:
    print("| loading a base model | emoji | sd15 |")
    print("|---|---|---|")
    for row in result["emoji"]:
        print(f"| {row} | {result['emoji'][row]:.3g} | {result['sd15'][row]:.3g} |")
    for row in result["emoji, erased"]:
        emoji, sd15 = (result[f"{size}, erased"][row] for size in ROUNDS)
        print(f"| erased, {row} | {emoji:.3g} | {sd15:.3g} |")


if __name__ == "__main__":
    main()
