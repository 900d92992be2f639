"""Whether the port of the service can be had, or is ours already."""

import json
import socket

import httpx

from core.addresses import family_of, in_url
from core.checkup.check import Check, ok, problem
from core.settings import Settings

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (where to look, not to listen)
OURS = "\nt2i_"
"""How the names of our metrics begin."""


def check_ports(settings: Settings) -> list[Check]:
    """Those that the service is about to listen on: nobody else may, not even one of ours."""
    checks = [check_free(settings.host, settings.port, "TRCE_PORT")]
    if settings.metrics_port:
        place = settings.metrics_host, settings.metrics_port
        checks.append(check_free(*place, "TRCE_METRICS_PORT"))
    return checks


def check_port(host: str, port: int) -> Check:
    """As it looks from outside, to whom the service may run already."""
    check = check_free(host, port, "TRCE_PORT")
    if check.state == "problem" and _is_ours(ANY.get(host, host), port):
        return ok("port", f"this service answers on {port}")
    return check


def check_metrics_port(host: str, port: int) -> Check:
    """As it looks from outside, to whom a process of ours may show its metrics there already."""
    check = check_free(host, port, "TRCE_METRICS_PORT").model_copy(update={"name": "metrics port"})
    if check.state == "problem" and OURS in _said(ANY.get(host, host), port, "/metrics"):
        return ok("metrics port", f"a process of ours shows its metrics on {port}")
    return check


def check_free(host: str, port: int, setting: str) -> Check:
    """
    Args:
        setting: what names the port, for the fix.
    """
    with socket.socket(family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "there are 65535"
            return problem(
                "port",
                f"{port} on {host} cannot be had ({why})",
                f"set {setting} (with docker compose, in .env) to a free one",
            )
    return ok("port", f"{port} on {host} is free")


def _is_ours(host: str, port: int) -> bool:
    try:
        return bool(json.loads(_said(host, port, "/healthz")) == {"status": "alive"})
    except ValueError:
        return False


def _said(host: str, port: int, path: str) -> str:
    """Empty where nobody speaks HTTP."""
    try:
        return httpx.get(f"http://{in_url(host)}:{port}{path}", timeout=2).text
    except httpx.HTTPError:
        return ""
