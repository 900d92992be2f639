"""The address that a server listens on: who can reach it, and how it is written."""

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def in_url(host: str) -> str:
    """An IPv6 address stands in brackets there."""
    return f"[{host}]" if ":" in host else host
