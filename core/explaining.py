"""Validation errors, in the words that the user used."""

from pydantic import ValidationError

from core.settings import Settings


def explain(error: ValidationError) -> list[str]:
    """What is wrong with each field, called as the user called it."""
    lines = []
    for one in error.errors():
        name = ".".join(map(str, one["loc"])) or error.title
        if error.title == Settings.__name__:
            name = "REDIS_URL" if "redis" in name.lower() else f"TRCE_{name.upper()}"
            name = "settings" if not one["loc"] else name
        lines.append(f"{name}: {one['msg'].removeprefix('Value error, ')}")
    return lines
