"""What webhooks are signed with: a secret for each tenant, made when it is first needed.

webhook_secret:<tenant>    hash: current; previous, until a time after a rotation
"""

import base64
import secrets
import time
from typing import Any

import redis

from core.redis_connection import answering

PREFIX = "whsec_"
SECRET_BYTES = 32
OVERLAP_S = 24 * 3600
"""After a rotation deliveries carry both signatures for so long."""


class WebhookSecrets:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def current(self, tenant: str) -> str:
        with answering():
            self._redis.hsetnx(_key(tenant), "current", _new())
            return str(self._redis.hget(_key(tenant), "current"))

    def rotate(self, tenant: str) -> str:
        before = self.current(tenant)
        fields: dict[Any, Any] = {
            "current": _new(),
            "previous": before,
            "previous_until": time.time() + OVERLAP_S,
        }
        with answering():
            self._redis.hset(_key(tenant), mapping=fields)
        return str(fields["current"])

    def valid(self, tenant: str) -> list[str]:
        """Newest first."""
        current = self.current(tenant)
        with answering():
            kept: Any = self._redis.hgetall(_key(tenant))
        if float(kept.get("previous_until", 0)) > time.time():
            return [current, kept["previous"]]
        return [current]


def _key(tenant: str) -> str:
    return f"webhook_secret:{tenant}"


def _new() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
