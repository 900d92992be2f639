"""The scripts that move jobs, in `core/lua/`: each is one transition, and atomic."""

from importlib import resources
from typing import Any

import redis
from redis.commands.core import Script

from core.redis_connection import answering

SCRIPTS = (
    *("submit", "claim", "beat", "progress", "samples", "commit", "release", "cancel", "reap"),
    *("retry", "webhook"),
)


class JobScripts:
    def __init__(self, client: redis.Redis) -> None:
        lua = resources.files("core") / "lua"
        prelude = (lua / "prelude.lua").read_text()
        self._scripts: dict[str, Script] = {
            name: client.register_script(prelude + (lua / f"{name}.lua").read_text())
            for name in SCRIPTS
        }

    def run(self, name: str, *args: str | float) -> Any:
        """Raises StoreUnavailable while Redis does not answer."""
        with answering():
            return self._scripts[name](args=list(args))


def ms(seconds: float) -> int:
    """A time as scripts take it."""
    return round(seconds * 1000)
