"""The door of every process: settings are read here, and what is plainly wrong stops it."""

import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from core.checkup.check import insist
from core.checkup.folder import check_folder
from core.checkup.names import check_names
from core.errors import AppError, Misconfigured
from core.explaining import explain
from core.settings import Settings

T = TypeVar("T")


WRITTEN = {
    "service": ("images", "making", "models"),
    "inference": ("images", "run"),
    "trainer": ("cache", "checkpoints", "making", "models", "run"),
    "setup": ("images", "keys", "making", "models"),
}
"""What each process cannot do without writing to, of the data folder."""
WRITTEN_BY_ANY = sorted({part for parts in WRITTEN.values() for part in parts})


def read_settings(process: str) -> Settings:
    """
    Args:
        process: one of WRITTEN.

    Raises:
        Misconfigured: a value is not acceptable, a name unknown, a secret or the data folder
            closed.

    Whether Redis answers is no question here: it may come later, and everything waits for it.
    """
    settings = given_settings()
    # An inference worker fetches what the bucket has and its host lacks.
    fetched = ("models",) if process == "inference" and settings.s3_models else ()
    insist([check_names(), *check_folder(settings.data_dir, (*WRITTEN[process], *fetched))])
    return settings


def given_settings() -> Settings:
    """Raises Misconfigured."""
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        raise Misconfigured("\n  ".join(explain(error))) from error


def start(begin: Callable[[], T]) -> T:
    """Exits with 1 and the reason where `begin` finds the process misconfigured."""
    try:
        return begin()
    except AppError as error:
        sys.exit(f"cannot start: {error}")
