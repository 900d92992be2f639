"""How much is to happen before a run has tried enough."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.chaos.faults import OF_TRAINERS


@dataclass(frozen=True)
class Goals:
    """Of one run."""

    jobs: int
    """To be accepted, of pictures."""
    erasures: int
    faults: Mapping[str, int]
    """Kind -> how often."""
    minutes: float
    """Over which all is spread."""

    def without(self, kind: str) -> "Goals":
        """Where this machine cannot do such a fault."""
        return replace(self, faults={**self.faults, kind: 0})

    def faults_by_schedule(self) -> tuple[dict[str, int], dict[str, int]]:
        """Those of everybody else, and those of trainers."""
        of_trainers = {kind: n for kind, n in self.faults.items() if kind in OF_TRAINERS}
        return {k: n for k, n in self.faults.items() if k not in of_trainers}, of_trainers

    def missed(self, *, jobs: int, erasures: int, happened: Mapping[str, int]) -> list[str]:
        """What was not reached, in words.

        Args:
            happened: kind of fault -> how often.
        """
        reached = [
            ("jobs accepted", self.jobs, jobs),
            ("erasures ended", self.erasures, erasures),
            *((f"times {kind}", n, happened.get(kind, 0)) for kind, n in self.faults.items()),
        ]
        return [f"{goal} {what}, it was {n}" for what, goal, n in reached if n < goal]
