"""Ids of jobs: random, and marked, so that one which was given out is known when its job is gone.

    0123456789abcdef0123 456789abcdef
    20 digits at random  12 digits: HMAC-SHA-256 over the kind and those, cut short

So a record that has expired is told from one that never was without keeping anything of it.
Nobody is let in by the mark: forging one turns a 404 into a 410.
"""

import hashlib
import hmac
import secrets
from typing import Any

import redis

from core.job_specs import Kind
from core.redis_connection import answering

KEY = "job_ids:key"
RANDOM_BYTES = 10
MARK_DIGITS = 12


class JobIds:
    """Both verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._key = b""

    def new(self, kind: Kind) -> str:
        chosen = secrets.token_hex(RANDOM_BYTES)
        return chosen + self._mark(kind, chosen)

    def was_given(self, kind: Kind, job_id: str) -> bool:
        chosen, mark = job_id[:-MARK_DIGITS], job_id[-MARK_DIGITS:]
        return hmac.compare_digest(mark, self._mark(kind, chosen))

    def _mark(self, kind: Kind, chosen: str) -> str:
        if not self._key:
            with answering():
                self._redis.setnx(KEY, secrets.token_hex(32))
                kept: Any = self._redis.get(KEY)
            self._key = bytes.fromhex(kept)
        digest = hmac.digest(self._key, f"{kind}:{chosen}".encode(), hashlib.sha256)
        return digest.hex()[:MARK_DIGITS]
