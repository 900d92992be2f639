"""One delivery over HTTP: signed as Standard Webhooks has it, to an address that is allowed.

Source: the specification at github.com/standard-webhooks/standard-webhooks.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

import httpcore

from core.errors import AddressForbidden
from core.version import CODE_VERSION
from service.webhooks.addresses import Network
from service.webhooks.secrets import PREFIX

WITHIN_S = 10.0
"""For a receiver to take a delivery; it is to answer first and work then."""
TAKEN = range(200, 300)


class NotTaken(Exception):
    """The receiver did not take it; another time it may."""


def headers_for(
    message_id: str, body: bytes, secrets: Sequence[str], *, at_s: int
) -> dict[str, str]:
    """A signature for each secret that is valid now, so that a receiver may know either."""
    signed = f"{message_id}.{at_s}.".encode() + body
    signatures = [
        hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), signed, hashlib.sha256)
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
        ),
        "Content-Type": "application/json",
        "User-Agent": f"trce/{CODE_VERSION}",
    }


def post(url: str, body: bytes, headers: dict[str, str], *, private_too: bool) -> None:
    """Follows no redirect, goes through no proxy, reads no answer but its status.

    Raises:
        NotTaken: with the reason, for whoever asked for the delivery.
    """
    network = Network(private_too=private_too, within_s=WITHIN_S)
    try:
        with (
            httpcore.ConnectionPool(network_backend=network) as pool,
            pool.stream("POST", url, headers=[*headers.items()], content=body) as answer,
        ):
            if answer.status not in TAKEN:
                raise NotTaken(f"the receiver answered with status {answer.status}")
    except httpcore.TimeoutException:
        raise NotTaken(f"the receiver took longer than {WITHIN_S:g} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise NotTaken(f"the receiver could not be reached: {type(error).__name__}") from None
    except AddressForbidden as error:
        raise NotTaken(error.detail) from None
