"""The door of every process: settings are read here, and what is plainly wrong stops it."""

import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

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
    "trainer": ("cache", "making", "models", "run"),
    "setup": ("images", "keys", "making", "models"),
}
"""What each process cannot do without writing to, of the data folder."""


def read_settings(process: str) -> Settings:
    """
    Args:
        process: one of WRITTEN.

    Raises:
        Misconfigured: a value is not acceptable, a name unknown, the data folder closed.

    Whether Redis answers is no question here: it may come later, and everything waits for it.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise Misconfigured("\n  ".join(explain(error))) from error
    insist([check_names(), *check_folder(settings.data_dir, WRITTEN[process])])
    return settings


def start(begin: Callable[[], T]) -> T:
    """Exits with 1 and the reason where `begin` finds the process misconfigured."""
    try:
        return begin()
    except AppError as error:
        sys.exit(f"cannot start: {error}")
