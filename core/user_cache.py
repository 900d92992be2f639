"""Where work without an installation keeps what it would otherwise do again: in the user's own
cache folder."""

import os
import time
from pathlib import Path

from core.leavings import Leavings


def user_cache() -> Path | None:
    """`$XDG_CACHE_HOME/trce`, `~/.cache/trce` without; None if nothing can be kept there.

    What nobody has used for a month goes.

    Nobody asked for it by name, so a home that is missing or read-only is no reason to fail.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # A relative one counts as none: so the XDG base directory specification has it.
        folder = (given if given.is_absolute() else Path.home() / ".cache") / "trce"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    Leavings(cache=folder).sweep(now=time.time())
    return folder
