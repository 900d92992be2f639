"""What a crash leaves of models that came half way: nobody looks at it, and nobody clears it away.

What a job leaves, under `making/job-...`, goes when its job has ended: see `worker/training.py`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

DAY_S = 24 * 3600.0
LEAVINGS = {
    "fetch-*": DAY_S,
    "[0-9a-f]" * 16: DAY_S,
    "import-*": DAY_S,
    "unpack-*": DAY_S,
    # An erasure at a terminal may train for days, and writes its model at the end.
    "offline.*": 14 * DAY_S,
}
"""Names of folders -> how long nothing in them changes before they are nobody's any more."""


class Leavings:
    def __init__(self, *folders: Path) -> None:
        """
        Args:
            folders: those in which models come to be.
        """
        self._folders = folders

    def sweep(self, *, now: float) -> None:
        """Remove what is old."""
        for folder, age_s in self._found():
            if now - _changed_at(folder) > age_s:
                shutil.rmtree(folder, ignore_errors=True)

    def _found(self) -> Iterator[tuple[Path, float]]:
        for within in self._folders:
            for pattern, age_s in LEAVINGS.items():
                for folder in within.glob(pattern):
                    if folder.is_dir() and not folder.is_symlink():
                        yield folder, age_s


def _changed_at(folder: Path) -> float:
    """When the newest thing in it changed; what has just gone is no news."""
    newest = 0.0
    for path in [folder, *folder.rglob("*")]:
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        # Not its mtime alone: a copy takes over that of what it copies.
        newest = max(newest, found.st_mtime, found.st_ctime)
    return newest
