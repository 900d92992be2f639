"""Errors in what was given, in the words that the user used."""

import os
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from core.settings import Settings


def explain(error: ValidationError | SettingsError) -> list[str]:
    """What is wrong with each field, called as the user called it."""
    if isinstance(error, SettingsError):
        return [_unread(error)]
    lines = []
    for one in error.errors():
        name = ".".join(map(str, one["loc"])) or error.title
        if error.title == Settings.__name__:
            name = "REDIS_URL" if "redis" in name.lower() else f"TRCE_{name.upper()}"
            name = "settings" if not one["loc"] else name
        lines.append(f"{name}: {one['msg'].removeprefix('Value error, ')}")
    return lines


def _unread(error: SettingsError) -> str:
    """A file in /run/secrets, as a rule, whose owner is somebody else."""
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.filename is None:
        return f"{error}: {cause}"
    name = Path(cause.filename).name
    return (
        f"{cause.filename} cannot be read ({cause.strerror}); with docker compose, "
        f"`chown {os.getuid()} deploy/secrets/{name}` on its host"
    )
