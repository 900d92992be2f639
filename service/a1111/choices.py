"""The model that a tenant's A1111 clients have chosen with `POST /options`.

Those clients set a model first and draw afterwards. It is remembered per tenant, and copied into
each job when that is admitted, so a later choice changes nothing that waits.
"""

import redis

from core.callers import Caller
from core.redis_connection import answering

KEPT_S = 30 * 24 * 3600


class ModelChoices:
    """Both verbs raise StoreUnavailable."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def of(self, caller: Caller) -> str:
        with answering():
            chosen = self._redis.get(_key(caller))
        return str(chosen) if chosen else "default"

    def choose(self, caller: Caller, model_id: str) -> None:
        with answering():
            self._redis.set(_key(caller), model_id, ex=KEPT_S)


def _key(caller: Caller) -> str:
    return f"a1111:model:{caller.tenant}"
