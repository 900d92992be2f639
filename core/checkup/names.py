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
FOR_COMPOSE = {
    *("TRCE_BIND", "TRCE_EXTRAS", "TRCE_PACKAGES", "TRCE_VERSION", "PYTHON_IMAGE"),
    *("INFERENCE_GPU", "INFERENCE_CPUS", "INFERENCE_MEMORY"),
    *("TRAINER_GPU", "TRAINER_CPUS", "TRAINER_MEMORY"),
    *("REDIS_BIND", "REDIS_IMAGE", "REDIS_MAXMEMORY", "REDIS_MEMORY", "REDIS_PORT"),
    *("GRAFANA_PORT", "INFERENCE_METRICS_PORT", "METRICS_BIND", "TRAINER_METRICS_PORT"),
    "WORKER_DATA",
}
"""Read by docker-compose.yml and the files in deploy/, from the same `.env`."""
NEAR = 0.87
"""As alike as a name without the prefix must be to one of those to be a misspelt one (difflib's
ratio): INFERENCE_GPUS is, REDIS_HOST, which may be another program's, is none of REDIS_PORT."""


def check_names(environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Check:
    """Looks at the environment and at `.env`."""
    given = set(os.environ if environ is None else environ)
    given |= set(dotenv_values(env_file or Path(".env")))
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields} | OTHERS | FOR_COMPOSE
    unknown = sorted(name for name in given - known if name.startswith(PREFIX) or _is_near(name))
    if not unknown:
        return ok(NAME, "every name is known")
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hints.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return problem(
        NAME,
        f"no such setting: {', '.join(hints)}",
        "correct the name or remove it; .env.example lists all settings",
    )


def _is_near(name: str) -> bool:
    return bool(difflib.get_close_matches(name, FOR_COMPOSE, n=1, cutoff=NEAR))
