"""What lies in the folder of a model, and in that of all models."""

import os
from itertools import islice
from pathlib import Path

from core.errors import UntrustedModel

MANIFEST = "manifest.json"
REPORTS = "reports"
INCOMING = ".incoming"
"""Beside the models: what is to be moved among them when it is whole."""
MAX_DEPTH = 32
MAX_ENTRIES = 100_000
"""Of a model's folder, its files and folders; more are not looked at."""


def file_names(folder: Path, *, links: bool = False) -> set[str]:
    """Every file below a model's folder, but the manifest and the reports.

    Args:
        links: links to files count as files: in a folder that nobody registered, such as a hub's
            cache. Links to folders never do.

    Raises:
        UntrustedModel: a symbolic link, or anything else that is neither file nor folder; a folder
            that cannot be read, nested too deeply, or with too much in it.
    """
    names: set[str] = set()
    # Not by recursion: whoever nests folders would choose how deep it goes.
    below, count = [""], 0
    while below:
        prefix = below.pop()
        try:
            with os.scandir(folder / prefix) as found:
                entries = [
                    (
                        entry.name,
                        entry.is_dir(follow_symlinks=False),
                        entry.is_file(follow_symlinks=links),
                    )
                    for entry in islice(found, MAX_ENTRIES + 1)
                ]
        except OSError as error:
            raise UntrustedModel(
                f"{folder.name}: {prefix or 'its folder'} cannot be read: {error.strerror}"
            ) from error
        count += len(entries)
        if count > MAX_ENTRIES or prefix.count("/") > MAX_DEPTH:
            raise UntrustedModel(
                f"{folder.name}: it holds more than {MAX_ENTRIES} files and folders, or some more "
                f"than {MAX_DEPTH} deep"
            )
        for entry, is_folder, is_file in entries:
            name = prefix + entry
            if is_folder:
                below.append(f"{name}/")
            elif not is_file:
                raise UntrustedModel(f"{folder.name}: {name} is not a plain file")
            # They come when the model has been made.
            elif name != MANIFEST and not name.startswith(f"{REPORTS}/"):
                names.add(name)
    return names
