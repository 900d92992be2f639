"""The outcome of looking at one thing."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core.errors import Misconfigured


class Check(BaseModel):
    """One thing that was looked at. A problem stops the start of a process; a warning does not."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str
    fix: str = ""
    """What to do about it, as one would type it."""


def ok(name: str, found: str) -> Check:
    return Check(name=name, state="ok", found=found)


def warning(name: str, found: str, fix: str) -> Check:
    return Check(name=name, state="warning", found=found, fix=fix)


def problem(name: str, found: str, fix: str) -> Check:
    return Check(name=name, state="problem", found=found, fix=fix)


def insist(checks: Iterable[Check]) -> None:
    """Raises Misconfigured, naming every problem with its fix."""
    problems = [f"{one.name}: {one.found}; {one.fix}" for one in checks if one.state == "problem"]
    if problems:
        raise Misconfigured("\n  ".join(problems))
