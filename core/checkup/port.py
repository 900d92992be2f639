"""Whether the port of the service can be had, or is ours already."""

import socket

import httpx

from core.checkup.check import Check, ok, problem

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (where to look, not to listen)


def check_port(host: str, port: int) -> Check:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if _is_ours(ANY.get(host, host), port):
                return ok("port", f"this service answers on {port}")
            return problem(
                "port",
                f"{port} on {host} cannot be had ({error.strerror})",
                "set TRCE_PORT (with docker compose, in .env) to a free one",
            )
    return ok("port", f"{port} on {host} is free")


def _is_ours(host: str, port: int) -> bool:
    address = f"[{host}]" if ":" in host else host
    try:
        said: object = httpx.get(f"http://{address}:{port}/healthz", timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return False
    return said == {"status": "alive"}
