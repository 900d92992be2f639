"""One run: clients ask, the nemesis strikes, and in the end everything is compared."""

import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checker import Verdict, check, missing, read_store
from tests.chaos.clients import BURST, Client, Journal
from tests.chaos.faults import Fault, Nemesis, plan
from tests.chaos.installation import Installation

CLIENTS = 8
WAVE_AHEAD_S = 0.6
"""How long before each fault its wave of jobs begins to be asked for."""
PATIENCE_S = 15.0
"""How long a fault waits for something to strike before another one takes its turn."""
SETTLE_S = 180.0
"""How long, after the last fault, everything that was accepted may take to end."""
TICK_S = 0.1


@dataclass
class Run:
    """What happened, all told."""

    seed: int
    minutes: float
    faults: list[Fault]
    journal: Journal
    verdict: Verdict
    far_host: str
    own_disk: bool


def run(
    folder: Path,
    *,
    seed: int,
    jobs: int,
    counts: dict[str, int],
    minutes: float,
    tell: Callable[[str], None],
) -> Run:
    """
    Args:
        jobs: at least so many are asked for, in equal waves.
        counts: how often each kind of fault is to happen.
        minutes: of load; faults are spread over them, and those that find no time are left out.
    """
    began = time.monotonic()
    rng = random.Random(seed)
    installation = Installation(folder)
    try:
        if not installation.disk.own:
            counts = counts | {"disk filled": 0}
        nemesis = Nemesis(installation, rng)
        journal = Journal()
        _drive(installation, nemesis, journal, plan(counts, rng), jobs, minutes * 60, seed, tell)
        tell("the nemesis has done; waiting for what was accepted")
        _settle(nemesis, journal, installation)
        records, streams = read_store(installation.jobs)
        verdict = check(journal, records, streams, nemesis.done)
        verdict.surprises = [f"{one}{_cause(one, installation)}" for one in verdict.surprises]
        return Run(
            seed=seed,
            minutes=(time.monotonic() - began) / 60,
            faults=nemesis.done,
            journal=journal,
            verdict=verdict,
            far_host=installation.far.kind,
            own_disk=installation.disk.own,
        )
    finally:
        installation.close()


def _drive(
    installation: Installation,
    nemesis: Nemesis,
    journal: Journal,
    faults: list[str],
    jobs: int,
    seconds: float,
    seed: int,
    tell: Callable[[str], None],
) -> None:
    """Jobs come in waves, one for each fault, which strikes while they are being drawn."""
    started = time.monotonic()
    gap_s = seconds / (len(faults) + 1)
    pace = Pace(jobs, waves=len(faults) + 1)
    clients = [
        Client(installation.stack.url, journal, seed * 1000 + number, may_ask=pace.may_ask)
        for number in range(CLIENTS)
    ]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    strike_at, told_at, left = started + gap_s, started, list(faults)
    while left and time.monotonic() < started + seconds:
        now = time.monotonic()
        if now >= strike_at - WAVE_AHEAD_S:
            pace.released = len(faults) - len(left) + 1
        if now >= strike_at:
            if nemesis.strike(left[-1]):
                left.pop()
                # Now and then two come close together.
                strike_at = time.monotonic() + gap_s * nemesis.random.uniform(0.3, 1.7)
            elif now >= strike_at + PATIENCE_S:
                left.insert(0, left.pop())
                strike_at = now
            else:
                # Most strike only what is at work, and a quick machine has done its wave by now.
                pace.ask_for_more(journal.accepted)
        nemesis.tend()
        if now > told_at + 30:
            told_at = now
            tell(f"{journal.accepted} jobs accepted, {len(nemesis.done)} faults, {len(left)} left")
        time.sleep(TICK_S)
    nemesis.relent()
    pace.released = pace.waves
    deadline = time.monotonic() + SETTLE_S
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        nemesis.tend()
        time.sleep(TICK_S)
    pace.over.set()


@dataclass
class Pace:
    """How many jobs may be asked for by now."""

    jobs: int
    waves: int
    released: int = 0
    more: int = 0
    """Jobs beyond the waves, so that there is something to strike."""
    over: threading.Event = field(default_factory=threading.Event)

    def may_ask(self, accepted: int) -> bool:
        """Raises StopIteration when no more are wanted."""
        if accepted >= self.jobs + self.more or self.over.is_set():
            raise StopIteration
        return accepted < self._by_now()

    def ask_for_more(self, accepted: int) -> None:
        """One more burst for each client, if all that may be asked for was."""
        if accepted >= self._by_now():
            self.more += CLIENTS * BURST

    def _by_now(self) -> float:
        return self.jobs * self.released / self.waves + self.more


def _cause(surprise: str, installation: Installation) -> str:
    """What the service logged of the request whose answer is quoted; a full disk keeps nothing."""
    asked = re.search(r'"request_id": "(\w+)"', surprise)
    if asked is None:
        return ""
    lines = [
        line
        for log in installation.logs()
        for line in log.read_text(errors="replace").splitlines()
        if asked[1] in line
    ]
    return "\n  ".join(["", *lines])


def _settle(nemesis: Nemesis, journal: Journal, installation: Installation) -> None:
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline and missing(journal, installation.jobs):
        nemesis.tend()
        time.sleep(1)
