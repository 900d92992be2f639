"""What a crash leaves of models that came half way: nobody looks at it, and nobody clears it away.

What a job leaves, under `making/job-...`, goes when its job has ended: see
`worker/trainer_leavings.py`.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
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
CACHED_S = 30 * DAY_S
"""What is kept so that it need not be made again, and what was half written of it, goes when
nobody has read or written it for so long."""


class Leavings:
    def __init__(
        self, *folders: Path, locks: Path | None = None, cache: Path | None = None
    ) -> None:
        """
        Args:
            folders: those in which models come to be.
            locks: a folder in which manifests are half written.
            cache: of pictures and sums, see `CACHED_S`.
        """
        self._folders = folders
        self._locks = locks
        self._cache = cache

    def sweep(self, *, now: float) -> None:
        """Remove what is old."""
        for folder, age_s in self._found():
            if now - _changed_at(folder) > age_s:
                shutil.rmtree(folder, ignore_errors=True)
        if self._locks is not None:
            # The locks themselves stay: somebody may wait for one.
            _sweep_files(self._locks, ".*", DAY_S, now=now)
        if self._cache is not None:
            _sweep_files(self._cache, "*", CACHED_S, now=now)
            _sweep_empty(self._cache, now=now)

    def _found(self) -> Iterator[tuple[Path, float]]:
        for within in self._folders:
            for pattern, age_s in LEAVINGS.items():
                for folder in within.glob(pattern):
                    if folder.is_dir() and not folder.is_symlink():
                        yield folder, age_s


def _changed_at(folder: Path) -> float:
    """When the newest thing in it changed; what has just gone is no news."""
    newest = 0.0
    for path in [folder, *_below(folder)]:
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        # Not its mtime alone: a copy takes over that of what it copies.
        newest = max(newest, found.st_mtime, found.st_ctime)
    return newest


def _below(folder: Path) -> Iterator[Path]:
    """Everything in a folder; what vanishes meanwhile, or is closed to this process, is skipped.

    `Path.rglob` raises where a folder vanishes before it is looked into.
    """
    for parent, folders, files in os.walk(folder, onerror=_unless_gone):
        for name in (*folders, *files):
            yield Path(parent, name)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        raise error


def _sweep_files(within: Path, pattern: str, age_s: float, *, now: float) -> None:
    for path in _below(within):
        if not fnmatchcase(path.name, pattern):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            found = path.lstat()
            touched = max(found.st_mtime, found.st_ctime, found.st_atime)
            if not path.is_dir() and now - touched > age_s:
                path.unlink()


def _sweep_empty(within: Path, *, now: float) -> None:
    """Folders that have been empty for a day: one that is new is about to be written to."""
    for folder, _, _ in os.walk(within, topdown=False):
        with contextlib.suppress(OSError):
            if folder != str(within) and now - Path(folder).stat().st_mtime > DAY_S:
                Path(folder).rmdir()
