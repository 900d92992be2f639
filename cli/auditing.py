"""The audit trail of an installation, for a command that changes it without its service."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cli.stack.borrowed import borrowed_redis
from core.audit import AuditTrail
from core.callers import LOCAL
from core.settings import Settings
from core.signing import Signer, Verifier


@contextmanager
def recorded(settings: Settings, action: str, subject: str) -> Iterator[None]:
    """Within, what is done has been written to the audit trail.

    Raises:
        Misconfigured, StoreUnavailable: there is no Redis to write it to, and so nothing is done.
    """
    with borrowed_redis(settings) as client:
        signer, verifier = Signer.load(settings.keys_dir), Verifier.load(settings.keys_dir)
        trail = AuditTrail(client, signer, verifier)
        who = f"{getpass.getuser()} at {socket.gethostname()}"
        with trail.recording(action, subject, actor=who, tenant=LOCAL):
            yield
