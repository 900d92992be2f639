"""Servers that the service is compared with, as processes of their own."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.stack import GRACE_S, clean_environment, wait_until
from cli.stack.ports import free_port
from core.children import start_child, stop_child


@contextlib.contextmanager
def running_server(module: str, *, threads: int) -> Iterator[str]:
    """A server of this package, `python -m benchmarks.serving.<module>`; its URL."""
    port = free_port("127.0.0.1")
    process = start_child(
        [
            *(sys.executable, "-m", f"benchmarks.serving.{module}"),
            *("--port", str(port), "--threads", str(threads)),
        ],
        env=clean_environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(process, lambda: _accepts(port))
        yield f"http://127.0.0.1:{port}/"
    finally:
        stop_child(process, grace_s=GRACE_S)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
