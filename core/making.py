"""Models in the making: folders that are nobody else's, and what a finished one holds."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from core.files import sha256
from core.manifests import Drawing, Edit, Manifest, ModelStatus, file_names
from core.thresholds import PromoteIf


class Making:
    """A folder with one in it for each model that is being made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, name: str) -> Path:
        """A new, empty folder in which to make a model before `Registrar.add`.

        It is nobody else's, whatever the name: who lost the right to work on a job may still be
        writing into the folder it was given.
        """
        folder = self._folder / f"{name}.{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
        return folder

    def clear(self, folder: Path) -> None:
        """Remove a folder that `begin` returned, if it is still there."""
        assert folder.parent == self._folder
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, is_over: Callable[[str], bool]) -> None:
        """Remove what was left behind: the folders whose name, as given to `begin`, is over."""
        for folder in self._folder.glob("*.*"):
            if is_over(folder.name.rpartition(".")[0]):
                self.clear(folder)


def describe(
    folder: Path,
    *,
    model_id: str,
    family: str,
    drawing: Drawing,
    code_version: str,
    edit: Edit | None = None,
    status: ModelStatus = ModelStatus.CANDIDATE,
    ignore: Iterable[str] = (),
    promote_if: PromoteIf | None = None,
) -> Manifest:
    """The unsigned manifest of the files now in `folder`."""
    names = file_names(folder) - set(ignore)
    return Manifest(
        id=model_id,
        kind="base" if edit is None else "erased",
        family=family,
        status=status,
        created_at=time.time(),
        code_version=code_version,
        drawing=drawing,
        edit=edit,
        files={name: sha256(folder / name) for name in sorted(names)},
        promote_if=promote_if,
    ).explicit()
