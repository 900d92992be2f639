"""A second host: a worker in a network namespace of its own, whose link can be taken down.

Where namespaces are not allowed (they need root and `ip`), the second host is a process on this
one, and the wire stops forwarding instead.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cli.stack.supervisor import Member
from tests.chaos.wire import Wire


class FarHost:
    """One inference worker, which shares the data folder and reaches the broker by network."""

    def __init__(self, data_dir: Path, broker_socket: Path, environment: dict[str, str]) -> None:
        self._namespace = f"trce-{os.getpid()}" if _namespaces_allowed() else None
        # A /30 from a range for tests of networks (RFC 2544); by process id, so that two runs
        # do not meet.
        block = os.getpid() % 4096
        self._net = f"198.18.{block // 16}.{block % 16 * 16}"
        host = "127.0.0.1"
        if self._namespace is not None:
            host = self._make_namespace()
        self.wire = Wire(host, broker_socket)
        prefix = ("ip", "netns", "exec", self._namespace) if self._namespace else ()
        self.worker = Member(
            "inference-far",
            [*prefix, sys.executable, "-m", "worker", "inference", "--name", "far"],
            environment | {"REDIS_URL": self.wire.url, "TRCE_DATA_DIR": str(data_dir)},
            data_dir.parent / "far.log",
        )

    @property
    def kind(self) -> str:
        return "a network namespace" if self._namespace else "a process behind our forwarder"

    def cut(self) -> None:
        if self._namespace is None:
            self.wire.cut()
        else:
            _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        if self._namespace is None:
            self.wire.mend()
        else:
            _ip("link", "set", self._link, "up")

    def close(self) -> None:
        self.wire.close()
        if self._namespace is not None:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self._namespace)

    @property
    def _link(self) -> str:
        return f"veth{os.getpid()}"

    def _make_namespace(self) -> str:
        """Returns our address as the far host sees it."""
        assert self._namespace is not None
        base, _, last = self._net.rpartition(".")
        ours, theirs = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"
        _ip("netns", "add", self._namespace)
        _ip(
            *("link", "add", self._link, "type", "veth"),
            *("peer", "name", "eth0", "netns", self._namespace),
        )
        _ip("addr", "add", f"{ours}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        inside = ("-n", self._namespace)
        _ip(*inside, "addr", "add", f"{theirs}/30", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip(*inside, "link", "set", device, "up")
        return ours


def _namespaces_allowed() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    trial = f"trce-trial-{os.getpid()}"
    try:
        _ip("netns", "add", trial)
        _ip("netns", "delete", trial)
    except subprocess.CalledProcessError:
        return False
    return True


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
