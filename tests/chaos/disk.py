"""A disk of its own for the data folder, so small that it can be filled."""

import os
import subprocess
from pathlib import Path

SIZE_MB = 512
MARGIN_BYTES = 1 << 16


class Disk:
    """A file system in memory, mounted on a folder; where that is not allowed, the folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._filler = folder / "filler"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0755", "chaos", str(folder)]
        self.own = os.geteuid() == 0 and _succeeds(mount)

    def fill(self) -> None:
        """Until nothing fits any more."""
        assert self.own
        block = bytes(MARGIN_BYTES)
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(block)
            except OSError:
                return

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if self.own:
            # Lazily: whatever still has a file open there is ending.
            _succeeds(["umount", "--lazy", str(self._folder)])


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
