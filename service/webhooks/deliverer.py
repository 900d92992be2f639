"""Threads of the service that tell clients' servers what has ended.

A delivery is repeated until it is taken, always under the same id: at least once, then. Its state
lies in Redis, so whichever process of the service is there goes on with it.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import structlog

from core.errors import JobNotFound, StoreUnavailable
from core.job_store import JobStore
from core.jobs import Job
from service.webhooks.outbox import Outbox
from service.webhooks.posting import NotTaken, headers_for, post
from service.webhooks.secrets import WebhookSecrets

THREADS = 4
MOST_OF_A_TENANT = 2
LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class Deliverer:
    def __init__(
        self,
        jobs: JobStore,
        outbox: Outbox,
        secrets: WebhookSecrets,
        shown: Callable[[Job], dict[str, Any]],
        *,
        private_too: bool,
    ) -> None:
        """
        Args:
            shown: a job as its own GET shows it.
            private_too: deliver to private and loopback addresses.
        """
        self._jobs = jobs
        self._outbox = outbox
        self._secrets = secrets
        self._shown = shown
        self._private_too = private_too
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self._sending: Counter[str] = Counter()
        """Tenant -> threads that wait for its receivers now."""
        # Daemons: what they leave unfinished another process does again.
        self._threads = [
            threading.Thread(target=self._run, name=f"webhooks-{number}", daemon=True)
            for number in range(THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def deliver_due(self) -> None:
        """One round. Raises StoreUnavailable."""
        for job_id in self._outbox.due():
            if self._stopped.is_set():
                return
            with self._outbox.taken(job_id) as ours:
                if ours:
                    self._try(job_id)

    def _try(self, job_id: str) -> None:
        try:
            self._deliver(job_id)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001
            # A defect with one job is not to keep the others waiting.
            log.error("webhook failed", job=job_id, error=type(error).__name__)  # noqa: TRY400
            self._outbox.postpone(job_id)

    def _deliver(self, job_id: str) -> None:
        try:
            job = self._jobs.get(job_id)
        except JobNotFound:
            self._outbox.forget(job_id)  # expired: there is nothing to tell any more
            return
        assert job.webhook is not None
        if self._outbox.rests(job.tenant, job.webhook):
            self._outbox.postpone(job_id)
            return
        with self._sharing(job.tenant) as free:
            if free:
                self._send(job)
            else:
                self._outbox.postpone(job_id, for_s=LOOK_EVERY_S)

    @contextmanager
    def _sharing(self, tenant: str) -> Iterator[bool]:
        """Whether a tenant may have one more thread: its receivers may be slow, and many."""
        with self._counting:
            free = self._sending[tenant] < MOST_OF_A_TENANT
            self._sending[tenant] += free
        try:
            yield free
        finally:
            with self._counting:
                self._sending[tenant] -= free
                if not self._sending[tenant]:
                    del self._sending[tenant]

    def _send(self, job: Job) -> None:
        assert job.webhook is not None
        body = json.dumps(message(job, self._shown(job))).encode()
        secrets = self._secrets.valid(job.tenant)
        headers = headers_for(message_id(job), body, secrets, at_s=int(time.time()))
        try:
            post(job.webhook, body, headers, private_too=self._private_too)
        except NotTaken as error:
            again = self._outbox.not_told(job, str(error))
            log.info("webhook not taken", job=job.id, why=str(error), again=again)
        else:
            self._outbox.told(job)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                self.deliver_due()
            except StoreUnavailable:
                continue  # it comes back, and the outbox with it
            except Exception as error:  # noqa: BLE001  (nobody would start this thread anew)
                log.error("webhooks not delivered", error=type(error).__name__)  # noqa: TRY400


def message_id(job: Job) -> str:
    """The same in every delivery of one end; a job that is tried again has another one."""
    return f"msg_{job.id}_{round((job.finished_at or 0) * 1000)}"


def message(job: Job, shown: dict[str, Any]) -> dict[str, Any]:
    """As Standard Webhooks wants a payload: what happened, when, and to what."""
    at = datetime.fromtimestamp(job.finished_at or 0, UTC)
    return {
        "type": f"{job.spec.kind}.{job.state}",
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": shown,
    }
