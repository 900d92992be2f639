"""Whether the memory of a process grew more than it may."""

from collections import defaultdict
from collections.abc import Sequence

from tests.soak.memory import Growth

MOST_MIB_PER_HOUR = 16.0
"""Three times the steepest slope of an hour in which 17 models were added."""
SECONDS = 15 * 60.0
"""What a process must have lived through after its warm-up: a line through less shows noise."""
JUDGED_FROM_MINUTES = 30.0
"""Of a run: in a shorter one no process lives long enough."""


def complaints(
    growths: Sequence[Growth], *, minutes: float, most_mib_per_hour: float = MOST_MIB_PER_HOUR
) -> list[str]:
    """In words; empty when nothing grew. Of each kind of process one at least must have lived
    long enough to be judged, or what died again and again would never be.

    Args:
        minutes: of the run.
    """
    if minutes < JUDGED_FROM_MINUTES:
        return []
    by_kind: dict[str, list[Growth]] = defaultdict(list)
    for one in growths:
        by_kind[one.process.partition(" (")[0]].append(one)
    found = []
    for kind, several in by_kind.items():
        judged = [one for one in several if one.seconds >= SECONDS]
        if not judged:
            found.append(f"no {kind} lived for {SECONDS / 60:g} minutes after its warm-up")
        found += [
            f"{one.process} grew by {one.slope_mib_per_hour:.1f} MiB an hour, "
            f"more than {most_mib_per_hour:g}"
            for one in judged
            if one.slope_mib_per_hour > most_mib_per_hour
        ]
    return found
