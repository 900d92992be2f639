"""Which models are refused, by the service's own look at manifests and by workers that load them.

Whoever asks for such a model is told; operators are told here: by /readyz, the metrics, the log
and the audit trail.
"""

import hashlib
import threading
import time
from collections.abc import Callable

import redis
import structlog

from core.audit import AuditTrail
from core.errors import StoreUnavailable
from core.manifests import Manifest
from core.redis_connection import answering
from core.refusals import Refusals
from core.registry import ModelRegistry

LOOK_EVERY_S = 5.0
TELL_AGAIN_S = 24 * 3600
"""The same refusal is written to the audit trail once in this time, by one service process."""
WRITING_S = 30
"""While a process writes it, no other does; if it has not been written by then, another tries."""

log = structlog.get_logger(__name__)


class RefusedModels:
    def __init__(
        self,
        client: redis.Redis,
        registry: ModelRegistry,
        trail: AuditTrail,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = client
        self._registry = registry
        self._refusals = Refusals(client)
        self._trail = trail
        self._now = now
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="refused-models", daemon=True)

    def all(self) -> dict[str, str]:
        """Model -> why it is refused; what the manifests say alone while Redis does not answer.

        None before it has answered once.
        """
        try:
            _, refused = self.survey()
        except StoreUnavailable:
            return {}
        return refused

    def survey(self) -> tuple[list[Manifest], dict[str, str]]:
        """The models whose manifests are trusted, and what `all` returns.

        Raises:
            StoreUnavailable: Redis has not answered yet, so no manifest is trusted or refused.
        """
        trusted, refused = self._registry.survey()
        try:
            by_workers = self._refusals.all()
        except StoreUnavailable:
            return trusted, refused
        for manifest in trusted:
            found = by_workers.get(manifest.id)
            # Not of what nobody asks for any more.
            if (
                found is not None
                and found.at > self._now() - TELL_AGAIN_S
                and self._registry.serving.allows(manifest)
            ):
                refused[manifest.id] = f"{found.reason} (seen by {found.worker})"
        return trusted, refused

    def write_down(self) -> None:
        """Log what is newly refused, and add it to the audit trail.

        Raises:
            StoreUnavailable.
        """
        for model_id, reason in self.all().items():
            mark = _mark(model_id, reason)
            if self._is_new(mark):
                log.warning("model refused", model=model_id, reason=reason)
                self._trail.note("model.refused", model_id, actor="service", reason=reason)
                with answering():
                    self._redis.expire(mark, TELL_AGAIN_S)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, within_s: float = 5.0) -> None:
        self._stopped.set()
        self._thread.join(within_s)

    def _is_new(self, mark: str) -> bool:
        """True for one of all service processes, which then has WRITING_S to write it down."""
        with answering():
            return bool(self._redis.set(mark, 1, nx=True, ex=WRITING_S))

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                self.write_down()
            except Exception as error:  # noqa: BLE001  (nobody would start this thread anew)
                log.warning("refused models not written down", error=type(error).__name__)


def _mark(model_id: str, reason: str) -> str:
    name = hashlib.sha256(f"{model_id}\n{reason}".encode()).hexdigest()[:32]
    return f"model_refused:{name}"
