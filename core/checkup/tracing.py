"""Whether OpenTelemetry traces can be sent where they are to go."""

import socket
from importlib.util import find_spec
from urllib.parse import urlsplit

from core.checkup.check import Check, ok, problem, warning

NAME = "traces"
TIMEOUT_S = 2.0
PORTS = {"http": 80, "https": 443}


def check_tracing(endpoint: str) -> Check:
    """
    Args:
        endpoint: TRCE_TRACE_ENDPOINT, not empty.
    """
    if find_spec("opentelemetry") is None:
        fix = "`pip install 'trce-service[tracing]'`, or set no TRCE_TRACE_ENDPOINT"
        return problem(NAME, "the extra `tracing` is not installed", fix)
    parts = urlsplit(endpoint)
    place = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        socket.create_connection(place, timeout=TIMEOUT_S).close()
    except OSError as error:
        # No problem: what cannot be sent is dropped, and nobody waits for it.
        return warning(
            NAME,
            f"nobody answers at {place[0]}:{place[1]} ({error.strerror or error})",
            "start the collector, or correct TRCE_TRACE_ENDPOINT; in containers, put it on the "
            "network `inside`",
        )
    return ok(NAME, f"a collector answers at {place[0]}:{place[1]}")
