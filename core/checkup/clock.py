"""Whether this host's clock agrees with that of Redis, and so with those of all other hosts.

Leases, deadlines and queues go by the clock of Redis alone. Beats of workers, API keys, quotas and
records of what was drawn carry the time of the host that writes them: a worker whose clock is
wrong would be counted as gone, or as alive long after its death.
"""

import time
from collections.abc import Callable
from typing import Any

import redis

from core.checkup.check import Check, ok, problem

MAX_SKEW_S = 2.0
"""Well below TRCE_LEASE_S, within which a worker must have beaten to count as alive."""
LOOKS = 3
"""The quickest answer of so many tells most exactly; a slow one would look like a wrong clock."""
FIX = "synchronise the clocks of both hosts (chrony or systemd-timesyncd)"


def check_clock(client: redis.Redis, *, now: Callable[[], float] = time.time) -> Check:
    """
    Args:
        now: this host's clock, in unix seconds.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    name = "clock"
    ahead_s, within_s = min((_look(client, now) for _ in range(LOOKS)), key=lambda look: look[1])
    if abs(ahead_s) - within_s <= MAX_SKEW_S:
        return ok(name, "agrees with Redis")
    side = "ahead of" if ahead_s > 0 else "behind"
    return problem(
        name,
        f"Redis' clock is {abs(ahead_s):.1f} s {side} ours, and {MAX_SKEW_S:g} s are allowed",
        FIX,
    )


def _look(client: redis.Redis, now: Callable[[], float]) -> tuple[float, float]:
    """How far Redis is ahead of us, in seconds, and by how much that may be wrong."""
    asked = now()
    answer: Any = client.time()
    answered = now()
    seconds, micros = answer
    return seconds + micros / 1e6 - (asked + answered) / 2, (answered - asked) / 2
