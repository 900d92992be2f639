"""Settings that nobody reads: a misspelt name would otherwise be a default in disguise."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from core.checkup.check import Check, ok, problem
from core.settings import Settings

NAME = "settings"
PREFIX = "TRCE_"
OTHERS = {"TRCE_API_KEY", "TRCE_URL", "TRCE_ROLE", "TRCE_OWNER", "TRCE_REDIS_URL"}
"""Variables with the prefix that are not fields of Settings."""
FOR_COMPOSE = {"TRCE_BIND", "TRCE_EXTRAS", "TRCE_PACKAGES", "TRCE_VERSION"}
"""Read by docker-compose.yml, from the same `.env`."""


def check_names(environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Check:
    """Looks at the environment and at `.env`."""
    given = set(os.environ if environ is None else environ)
    given |= set(dotenv_values(env_file or Path(".env")))
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields} | OTHERS | FOR_COMPOSE
    unknown = sorted(name for name in given if name.startswith(PREFIX) and name not in known)
    if not unknown:
        return ok(NAME, "every TRCE_ name is known")
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hints.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return problem(
        NAME,
        f"no such setting: {', '.join(hints)}",
        "correct the name or remove it; .env.example lists all settings",
    )
