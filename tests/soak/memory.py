"""How much memory each process of a stack holds, over time, and whether that grows."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import psutil

MIB = 1 << 20
WARM_UP_SHARE = 0.25
"""Of a process's life: caches fill, allocators settle."""
FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class Growth:
    """Of one process, after its warm-up."""

    process: str
    samples: int
    first_mib: float
    last_mib: float
    seconds: float
    """Between the first and the last sample."""
    slope_mib_per_hour: float
    """Of the straight line through all samples, least squares."""

    @property
    def slope_percent_per_hour(self) -> float:
        return 100 * self.slope_mib_per_hour / self.first_mib


@dataclass
class Memory:
    """Samples of resident memory, by process: (seconds, MiB)."""

    samples: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def look(self, family: list[psutil.Process]) -> None:
        """Note what each holds now; a trainer lives for one job and is left out."""
        now = time.monotonic()
        for process in family:
            try:
                words = process.cmdline()
                if (name := name_of(words, process)) is not None:
                    held = process.memory_info().rss / MIB
                    self.samples[f"{name} ({process.pid})"].append((now, held))
            except psutil.NoSuchProcess:
                continue

    def growths(self) -> list[Growth]:
        """Of every process that lived long enough."""
        return [
            growth(name, samples)
            for name, samples in sorted(self.samples.items())
            if len(samples) >= FEWEST_SAMPLES
        ]


def growth(name: str, samples: list[tuple[float, float]]) -> Growth:
    settled = samples[int(WARM_UP_SHARE * len(samples)) :]
    at, held = np.array(settled).T
    slope, _ = np.polyfit((at - at[0]) / 3600, held, 1)
    third = max(1, len(held) // 3)
    return Growth(
        process=name,
        samples=len(settled),
        first_mib=float(held[:third].mean()),
        last_mib=float(held[-third:].mean()),
        seconds=float(at[-1] - at[0]),
        slope_mib_per_hour=float(slope),
    )


def name_of(words: list[str], process: psutil.Process) -> str | None:
    """What a process of the stack is for, by its command; None of a short-lived one."""
    line = " ".join(words)
    if "unixsocket:" in line or "valkey" in line:
        return "broker"
    for mark, name in (("-m service", "service"), ("cli.main up", "supervisor")):
        if mark in line:
            return name
    if "-m worker.heartbeat" in line:
        return f"{words[words.index('worker.heartbeat') + 1].partition('@')[0]} heartbeat"
    if "-m worker " in line:
        place = words.index("worker")
        return f"{words[place + 1]}-{words[words.index('--name') + 1]} parent"
    if "billiard.spawn" in line:
        parent = process.parent()
        above = name_of(parent.cmdline(), parent) if parent else None
        return above and above.replace("parent", "child")
    return None
