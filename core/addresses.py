"""Who can reach an address that a server listens on."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
