"""What operators did, and why: appended to, never changed, each entry signed and chained.

    audit    stream; each entry is one JSON document in the field `entry`

Entry n holds the SHA-256 of entry n - 1 and a signature by the installation's key, so whoever can
write to Redis but has not the key can neither forge nor change nor take out an entry without a
trace. Cutting off the newest entries leaves none; keep copies elsewhere where that matters.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import redis
from pydantic import BaseModel, ConfigDict

from core.callers import LOCAL
from core.errors import AppError, AuditEntryNotFound, UntrustedModel
from core.redis_connection import answering
from core.signing import Signature, Signer, Verifier, canonical

KEY = "audit"
FIRST = "0" * 64
"""What the first entry names as its predecessor."""

Outcome = Literal["ordered", "refused", "noticed"]


class AuditEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    at: float
    actor: str
    """An API key, by its id, or who ran a command on a host of the installation."""
    tenant: str
    action: str
    """Such as `model.promotion`."""
    subject: str
    """What it was done to: the id of a model, a key, a tenant."""
    outcome: Outcome
    """Ordered: written before it was done. Refused: a second entry, if it then was not. Noticed:
    nobody ordered it."""
    reason: str = ""
    detail: dict[str, str] = {}
    request_id: str = ""
    previous: str
    signature: Signature | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()

    def document(self) -> dict[str, Any]:
        """What is signed."""
        return self.model_dump(mode="json", exclude={"signature"})


class AuditTrail:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(
        self,
        client: redis.Redis,
        signer: Signer,
        verifier: Verifier,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = client
        self._signer = signer
        self._verifier = verifier
        self._now = now

    @contextmanager
    def recording(
        self,
        action: str,
        subject: str,
        *,
        actor: str,
        tenant: str,
        reason: str = "",
        detail: dict[str, str] | None = None,
        request_id: str = "",
    ) -> Iterator[None]:
        """Write down what is about to be done; if it is refused, that too.

        Nothing is done that was not written down first.
        """
        entry = {
            "action": action,
            "subject": subject,
            "actor": actor,
            "tenant": tenant,
            "reason": reason,
            "detail": detail or {},
            "request_id": request_id,
        }
        self._append(entry, "ordered")
        try:
            yield
        except AppError as error:
            self._append(entry | {"detail": {"refused": type(error).__name__}}, "refused")
            raise

    def note(self, action: str, subject: str, *, actor: str, reason: str) -> None:
        """Write down what nobody ordered, such as a model that is refused."""
        entry = {
            "action": action,
            "subject": subject,
            "actor": actor,
            "tenant": LOCAL,
            "reason": reason,
        }
        self._append(entry, "noticed")

    def page(self, *, limit: int, before: int | None = None) -> list[AuditEntry]:
        """Up to `limit` entries, newest first.

        Args:
            before: the number of the last one seen.

        Raises:
            AuditEntryNotFound.
        """
        with answering():
            newest = "+" if before is None else f"({self._stream_id(before)}"
            found: Any = self._redis.xrevrange(KEY, max=newest, count=limit)
        return [AuditEntry.model_validate_json(fields["entry"]) for _, fields in found]

    def broken(self, entries: Sequence[AuditEntry], *, chained: bool = False) -> int | None:
        """The number of the newest entry that is not as it was written; None: all hold.

        A key that was revoked since may have signed an entry, as long as a newer one, signed by a
        trusted key, names that entry: whoever stole the key cannot add to the trail.

        Args:
            entries: newest first, without gaps; the last one is held against its signature alone,
                unless it is the first there is.
            chained: the first one was the last one of other entries that hold.
        """
        for place, entry in enumerate(entries):
            if not self._is_signed(entry, also_revoked=chained or place > 0):
                return entry.number
            before = entries[place + 1] if place + 1 < len(entries) else None
            if before is not None and (
                entry.previous != before.digest or entry.number != before.number + 1
            ):
                return entry.number
            if before is None and entry.number == 1 and entry.previous != FIRST:
                return entry.number
        return None

    def _append(self, fields: dict[str, Any], outcome: Outcome) -> None:
        """Of two at once, one is told of the other and tries again."""

        def step(pipe: redis.client.Pipeline) -> None:
            last: Any = self._redis.xrevrange(KEY, count=1)
            before = AuditEntry.model_validate_json(last[0][1]["entry"]) if last else None
            entry = AuditEntry(
                number=before.number + 1 if before else 1,
                at=self._now(),
                outcome=outcome,
                previous=before.digest if before else FIRST,
                **fields,
            )
            signed = entry.model_copy(update={"signature": self._signer.sign(entry.document())})
            pipe.multi()
            # The number is the entry's id in the stream, too, so it is found by it.
            pipe.xadd(KEY, {"entry": signed.model_dump_json()}, id=f"{signed.number}-0")

        with answering():
            self._redis.transaction(step, KEY)

    def _stream_id(self, number: int) -> str:
        stream_id = f"{number}-0"
        with answering():
            found: Any = self._redis.xrange(KEY, min=stream_id, max=stream_id)
        if not found:
            raise AuditEntryNotFound(f"no entry {number} in the audit trail")
        return stream_id

    def _is_signed(self, entry: AuditEntry, *, also_revoked: bool) -> bool:
        if entry.signature is None:
            return False
        try:
            self._verifier.check(entry.document(), entry.signature, also_revoked=also_revoked)
        except UntrustedModel:
            return False
        return True
