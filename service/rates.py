"""How often a tenant may ask: a sliding window in Redis, shared by all API processes."""

import math
import time
from dataclasses import dataclass

import redis
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from core.errors import RateLimited
from core.policies import PolicyInForce
from core.redis_connection import answering

WINDOW_S = 60


@dataclass(frozen=True)
class Allowance:
    """What is left after a request."""

    limit: int
    remaining: int
    reset_s: float
    """Until there is more."""
    granted: bool

    def check(self) -> None:
        """Raises RateLimited when there was none left."""
        if not self.granted:
            raise RateLimited(
                f"your policy allows {self.limit} requests for work a minute; send it again later",
                retry_after_s=max(1, math.ceil(self.reset_s)),
            )

    @property
    def headers(self) -> dict[str, str]:
        """As OpenAI's clients read them, and as the IETF drafts them."""
        reset_s = math.ceil(self.reset_s)
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{reset_s}s",
            "RateLimit-Policy": f'"requests";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"requests";r={self.remaining};t={reset_s}',
        }


class RateLimits:
    def __init__(self, client: redis.Redis) -> None:
        # The address is for the library to choose a client by; the connections are ours.
        storage = RedisStorage("redis://", connection_pool=client.connection_pool)
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    def spend(self, tenant: str, policy: PolicyInForce) -> Allowance | None:
        """Count one request; None where the policy sets no limit.

        Raises:
            StoreUnavailable.
        """
        limit = policy.policy.limits.requests_per_minute
        if limit is None:
            return None
        item = RateLimitItemPerMinute(limit)
        with answering():
            granted = self._limiter.hit(item, tenant)
            stats = self._limiter.get_window_stats(item, tenant)
        reset_s = max(0.0, stats.reset_time - time.time())
        return Allowance(limit, stats.remaining if granted else 0, reset_s, granted)
