"""One run: clients ask, the nemesis strikes, and in the end everything is compared."""

import random
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.cancels import forgotten_at
from tests.chaos.checker import check, left_over, missing, read_store
from tests.chaos.clients import BURST, Client
from tests.chaos.erasing import ErasureClient, ErasurePace
from tests.chaos.faults import Fault, Nemesis, plan
from tests.chaos.goals import Goals
from tests.chaos.installation import Installation
from tests.chaos.journal import Journal
from tests.chaos.models import check_erasures, read_models
from tests.chaos.schedule import Pace, Schedule
from tests.chaos.verdict import Verdict

CLIENTS = 8
WAVE_AHEAD_S = 0.6
"""How long before each fault its wave of jobs begins to be asked for."""
OVERTIME_SHARE = 0.1
"""Of the time of load, for faults that found nothing to strike in it."""
SETTLE_S = 180.0
"""How long, after the last fault, everything that was accepted may take to end."""
IN_CALM = 2 * CLIENTS * BURST
"""Jobs beyond the goal that are asked for when no fault is near, to be cancelled in part."""
TICK_S = 0.1


@dataclass
class Run:
    """What happened, all told."""

    seed: int
    goals: Goals
    minutes: float
    faults: list[Fault]
    journal: Journal
    verdict: Verdict
    far_host: str
    own_disk: bool

    @property
    def missed(self) -> list[str]:
        """The goals that were not reached, in words."""
        return self.goals.missed(
            jobs=self.verdict.jobs,
            erasures=sum(self.verdict.erasures.values()),
            happened=Counter(fault.kind for fault in self.faults),
        )


def run(
    folder: Path,
    *,
    seed: int,
    goals: Goals,
    tell: Callable[[str], None],
    overtime_share: float = OVERTIME_SHARE,
    keep: Path | None = None,
) -> Run:
    """Ends when the goals are reached, or when their time and that beyond it are over.

    Args:
        keep: a folder for the processes' logs, where something is to be looked into.
    """
    began = time.monotonic()
    installation = Installation(folder)
    try:
        if not installation.disk.own:
            goals = goals.without("disk filled")
        nemesis = Nemesis(installation, random.Random(seed))
        journal = Journal()
        for line in _drive(installation, nemesis, journal, goals, seed, overtime_share):
            tell(line)
        tell("the nemesis has done; waiting for what was accepted")
        _settle(nemesis, journal, installation)
        faults = nemesis.done
        digests = installation.digests
        verdict = check(journal, *read_store(installation.jobs, "generation"), faults, digests)
        models = read_models(installation.registry, digests)
        erasures = read_store(installation.jobs, "erasure")
        check_erasures(journal, *erasures, models, faults, verdict)
        verdict.left_over = left_over(installation.redis)
        verdict.surprises = [f"{one}{_cause(one, installation)}" for one in verdict.surprises]
        if keep is not None and (verdict.unexplained or not verdict.clean):
            keep.mkdir(parents=True, exist_ok=True)
            for log in installation.logs():
                shutil.copy(log, keep)
        return Run(
            seed=seed,
            goals=goals,
            minutes=(time.monotonic() - began) / 60,
            faults=faults,
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
    goals: Goals,
    run_seed: int,
    overtime_share: float,
) -> Iterator[str]:
    """Jobs come in waves, one for each fault, which strikes while they are being drawn.

    The faults of trainers come in their own time, whenever a training is to be had.
    """
    began, url = time.monotonic(), installation.stack.url
    seconds = goals.minutes * 60
    latest = began + seconds * (1 + overtime_share)
    mine, trainers = (
        Schedule(plan(faults, nemesis.random), began=began, seconds=seconds, rng=nemesis.random)
        for faults in goals.faults_by_schedule()
    )
    pace = Pace(goals.jobs, len(mine.left) + 1, burst=CLIENTS * BURST, in_calm=IN_CALM)
    erasures = ErasurePace(goals.erasures, began=began, seconds=seconds)
    clients = [
        *(Client(url, journal, run_seed * 1000 + n, pace) for n in range(CLIENTS)),
        ErasureClient(url, journal, run_seed, erasures),
    ]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    told_at = began
    while (mine.left or trainers.left) and (now := time.monotonic()) < latest:
        if mine.is_due(now, ahead_s=WAVE_AHEAD_S):
            pace.released = pace.waves - len(mine.left)
        if mine.is_due(now):
            if nemesis.strike(mine.kind):
                mine.struck(time.monotonic())
            else:
                mine.missed(now)
                # Most strike only what is at work, and a quick machine has done its wave by now.
                pace.ask_for_more(journal.accepted)
        erasures.wanted = trainers.is_due(now)
        if erasures.wanted and nemesis.strike(trainers.kind):
            trainers.struck(time.monotonic())
        nemesis.tend()
        if now > told_at + 30:
            told_at = now
            left = len(mine.left) + len(trainers.left)
            yield (
                f"{journal.accepted} jobs and {len(journal.erasures)} erasures accepted, "
                f"{len(nemesis.done)} faults, {left} left"
            )
        time.sleep(TICK_S)
    nemesis.relent()
    erasures.wanted, erasures.finished = False, True
    calm_at = max(map(forgotten_at, nemesis.done), default=0.0)
    while time.time() < calm_at:
        nemesis.tend()
        time.sleep(TICK_S)
    pace.released, pace.calm = pace.waves, True
    # What is still to be asked for, too, has the time that the faults have.
    deadline = latest + SETTLE_S
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        nemesis.tend()
        time.sleep(TICK_S)
    pace.over.set()
    erasures.over.set()


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
