"""A worker whose clock is not that of Redis does not come up: its beats would be wrong."""

import redis

from core.checkup.check import Check
from core.checkup.clock import check_clock
from core.redis_connection import connect
from core.settings import Settings

WAIT_FOR_REDIS_S = 1.0


def look_at_clock(settings: Settings, *, retry_s: float = WAIT_FOR_REDIS_S) -> list[Check]:
    """One check; none while Redis does not answer, as everything waits for it."""
    if settings.redis_url is None:
        return []
    try:
        with connect(settings.redis_url, retry_s=retry_s) as client:
            return [check_clock(client)]
    except (redis.RedisError, OSError):
        return []
