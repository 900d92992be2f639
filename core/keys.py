"""API keys, in Redis: every API process sees a new or a revoked one at once.

    apikey:<id>    string, the record as JSON      apikeys    sorted set, ids by creation

A key reads `trce_<id>_<secret>`: the id finds the record, and of the secret only the SHA-256 is
kept. The secret is 256 random bits, so nobody can search for it; a slow hash, which passwords
need, would add nothing but its cost. Records are never deleted: an installation that once had
keys does not become an open one because the last of them was revoked.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import redis
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.callers import LOCAL, SCOPES, Scope, Tenant
from core.errors import ApiKeyNotFound, ApiKeyRefused, ApiKeyRevoked, Invalid
from core.redis_connection import answering

TOKEN = re.compile(r"trce_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
INDEX = "apikeys"
NOBODY = hashlib.sha256(b"no key at all").hexdigest()

Label = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)]


class ApiKey(BaseModel):
    """What is known of a key; the key itself is known to its owner alone."""

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: Tenant = LOCAL
    label: Label = ""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    digest: Annotated[str, Field(repr=False)]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    previous_digest: Annotated[str, Field(repr=False)] = ""
    previous_until: float = 0
    """Until then the secret before the last rotation is accepted, too."""

    def state(self, now: float) -> str:
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "valid"


class KeyStore:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._now = now

    def create(
        self,
        *,
        scopes: Sequence[str],
        tenant: str = LOCAL,
        label: str = "",
        life_s: float | None = None,
    ) -> tuple[ApiKey, str]:
        """The record, and the key: the only time that it is to be had.

        Raises:
            Invalid: a tenant or a scope that cannot be.
        """
        if unknown := set(scopes) - set(SCOPES):
            raise Invalid(f"no scope {min(unknown)!r}; there are {', '.join(SCOPES)}")
        if life_s is not None and life_s <= 0:
            raise Invalid("a key must live for some time; leave the expiry out for no end")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        now = self._now()
        try:
            key = ApiKey(
                id=key_id,
                tenant=tenant,
                label=label,
                scopes=tuple(scope for scope in SCOPES if scope in scopes),
                digest=_digest(secret),
                created_at=now,
                expires_at=None if life_s is None else now + life_s,
            )
        except ValueError as error:
            raise Invalid(
                "a key needs a scope, a label of at most 100 characters, and a tenant named with "
                "lower-case letters, digits and hyphens"
            ) from error
        with answering():
            pipe = self._redis.pipeline(transaction=True)
            pipe.set(_record(key_id), key.model_dump_json())
            pipe.zadd(INDEX, {key_id: now})
            pipe.execute()
        return key, _token(key_id, secret)

    def check(self, token: str) -> ApiKey:
        """Raises ApiKeyRefused; takes as long for an id that is not there as for one that is."""
        match = TOKEN.fullmatch(token)
        if match is None:
            return self.check_digest("", NOBODY)
        return self.check_digest(match[1], _digest(match[2]))

    def check_digest(self, key_id: str, digest: str) -> ApiKey:
        """As `check`, for who keeps no secret, but the `digest` of one that was checked before.

        Raises:
            ApiKeyRefused.
        """
        key = self._read(key_id) if key_id else None
        current = hmac.compare_digest(digest, key.digest if key else _digest("nobody"))
        former = hmac.compare_digest(digest, (key and key.previous_digest) or _digest("nobody"))
        now = self._now()
        if key is None or not (current or (former and now < key.previous_until)):
            raise ApiKeyRefused("this API key is not valid here")
        if (state := key.state(now)) != "valid":
            raise ApiKeyRefused(f"this API key is {state}; ask the operator for another")
        return key

    def exist(self) -> bool:
        """Whether there ever was one."""
        with answering():
            return bool(self._redis.exists(INDEX))

    def all(self) -> list[ApiKey]:
        """Oldest first, revoked and expired ones too."""
        with answering():
            ids: Any = self._redis.zrange(INDEX, 0, -1)
            records: Any = self._redis.mget([_record(key_id) for key_id in ids]) if ids else []
        return [ApiKey.model_validate_json(text) for text in records if text]

    def get(self, key_id: str) -> ApiKey:
        """Raises ApiKeyNotFound."""
        key = self._read(key_id)
        if key is None:
            raise ApiKeyNotFound(f"no API key {key_id!r}; `trce keys list` shows them")
        return key

    def revoke(self, key_id: str) -> ApiKey:
        """From now on it is refused; again is no error.

        Raises:
            ApiKeyNotFound.
        """
        return self._change(
            key_id,
            lambda key: (
                key if key.revoked_at else key.model_copy(update={"revoked_at": self._now()})
            ),
        )

    def rotate(self, key_id: str, *, overlap_s: float) -> tuple[ApiKey, str]:
        """Give a key a new secret; the old one is accepted for `overlap_s` more seconds.

        Raises:
            ApiKeyNotFound, ApiKeyRevoked.
        """
        secret = secrets.token_urlsafe(32)

        def renew(key: ApiKey) -> ApiKey:
            if key.revoked_at is not None:
                raise ApiKeyRevoked(f"API key {key_id} is revoked; create another")
            return key.model_copy(
                update={
                    "digest": _digest(secret),
                    "previous_digest": key.digest if overlap_s > 0 else "",
                    "previous_until": self._now() + overlap_s,
                }
            )

        return self._change(key_id, renew), _token(key_id, secret)

    def _read(self, key_id: str) -> ApiKey | None:
        with answering():
            text: Any = self._redis.get(_record(key_id))
        return ApiKey.model_validate_json(text) if text else None

    def _change(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """Read, change and write as one: of two changes at once, neither is lost."""

        changed: list[ApiKey] = []

        def step(pipe: redis.client.Pipeline) -> None:
            changed.append(change(self.get(key_id)))
            pipe.multi()
            pipe.set(_record(key_id), changed[-1].model_dump_json())

        with answering():
            self._redis.transaction(step, _record(key_id))
        return changed[-1]


def _record(key_id: str) -> str:
    return f"apikey:{key_id}"


def digest_of(token: str) -> str:
    """What is kept of a key that `KeyStore.check` let in."""
    return _digest(token.split("_", 2)[2])


def _token(key_id: str, secret: str) -> str:
    return f"trce_{key_id}_{secret}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
