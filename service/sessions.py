"""Sessions of people who logged in to the page with an API key.

    session:<SHA-256 of its id>    string, JSON: the key's id and the digest of its secret

The browser keeps a random id in a cookie that no script can read, and never the key. A session
ends when it is closed, after half a day, and at once when its key is revoked, expires or gets
another secret: the key is checked again at every request.
"""

import hashlib
import json
import secrets
from typing import Any

import redis
from starlette.requests import cookie_parser

from core.errors import ApiKeyRefused
from core.keys import ApiKey, KeyStore, digest_of
from core.redis_connection import answering

COOKIE = "trce_session"
LIFE_S = 12 * 3600


class Sessions:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis, keys: KeyStore) -> None:
        self._redis = client
        self._keys = keys

    def open(self, token: str) -> str:
        """The id of a new session.

        Raises:
            ApiKeyRefused.
        """
        key = self._keys.check(token)
        session_id = secrets.token_urlsafe(32)
        record = json.dumps({"key": key.id, "digest": digest_of(token)})
        with answering():
            self._redis.set(_record(session_id), record, ex=LIFE_S)
        return session_id

    def key(self, session_id: str) -> ApiKey:
        """The key that the session was opened with.

        Raises:
            ApiKeyRefused: the session has ended, or its key is no longer valid.
        """
        with answering():
            text: Any = self._redis.get(_record(session_id))
        if not text:
            raise ApiKeyRefused("this session has ended; log in again")
        kept = json.loads(text)
        return self._keys.check_digest(kept["key"], kept["digest"])

    def close(self, session_id: str) -> None:
        with answering():
            self._redis.delete(_record(session_id))


def session_id(cookies: str) -> str | None:
    """From a Cookie header."""
    return cookie_parser(cookies).get(COOKIE)


def _record(session_id: str) -> str:
    return f"session:{hashlib.sha256(session_id.encode()).hexdigest()}"
