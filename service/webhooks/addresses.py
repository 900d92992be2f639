"""Which addresses the service may connect to for a client: none of our own networks.

A webhook's address is chosen by a client, and what lies behind a name may change between two
look-ups (DNS rebinding). So what counts is the very address that a connection is made to.
"""

import ipaddress
import socket
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from core.errors import AddressForbidden

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether it is on the internet; so must an IPv4 address be that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(carried)
        if address.teredo or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


class Network(httpcore.NetworkBackend):
    """Connections to public addresses, over which nobody can hold us up."""

    def __init__(self, *, private_too: bool, within_s: float) -> None:
        """
        Args:
            within_s: for a whole exchange, however slowly the other side sends.
        """
        self._private_too = private_too
        self._until = time.monotonic() + within_s
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises AddressForbidden."""
        address = self._address(host, port)
        stream = self._backend.connect_tcp(
            address, port, _left_s(self._until, timeout), local_address, socket_options
        )
        return Stream(stream, self._until)

    def _address(self, host: str, port: int) -> str:
        """Looked up once, checked, and connected to by its number."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"no address of {host}") from error
        numbers = [str(entry[4][0]) for entry in found]
        for number in numbers:
            if self._private_too or is_public(ipaddress.ip_address(number.partition("%")[0])):
                return number
        raise AddressForbidden(
            "the webhook's host has no public address; TRCE_WEBHOOKS_TO_PRIVATE_ADDRESSES allows "
            "others"
        )


class Stream(httpcore.NetworkStream):
    """Ends at a time, whatever was read or written until then."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(self._until, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(self._until, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(
            ssl_context, server_hostname, _left_s(self._until, timeout)
        )
        return Stream(stream, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left_s(until: float, timeout_s: float | None) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("it takes too long")
    return left_s if timeout_s is None else min(left_s, timeout_s)
