"""Whether a client's server may be told anything, as far as its address alone says."""

import ipaddress
from urllib.parse import SplitResult, urlsplit

from core.errors import Invalid
from service.webhooks.addresses import is_public

LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal")


def check_receiver(url: str, *, private_too: bool) -> None:
    """Says early what every delivery would fail of; where a name leads is seen at delivery.

    Raises:
        Invalid.
    """
    parts = _parts(url)
    if parts.username is not None or parts.fragment:
        raise Invalid("webhook: leave the user name and the fragment out of the address")
    if private_too:
        return
    if parts.scheme != "https":
        raise Invalid("webhook: the address must begin with https://")
    host = parts.hostname or ""
    try:
        public = is_public(ipaddress.ip_address(host))
    except ValueError:
        public = not f".{host}".endswith(LOCAL_NAMES)
    if not public:
        raise Invalid(
            "webhook: this is no address on the internet; the operator may allow others with "
            "TRCE_WEBHOOKS_TO_PRIVATE_ADDRESSES"
        )


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Invalid("webhook: this is no address; send one like https://a.example/hook")
    return parts
