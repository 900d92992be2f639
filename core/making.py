"""Models in the making: folders that are nobody else's, and what a finished one holds."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from core.digests import Algorithm, digests
from core.edits import Edit
from core.manifests import Drawing, Manifest, ModelStatus
from core.model_folder import file_names
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
    links: bool = False,
) -> Manifest:
    """The unsigned manifest of the files now in `folder`.

    Args:
        links: follow links to files, in a folder that will not be registered, see `file_names`.

    Raises:
        UntrustedModel: there is something else than files and folders.
    """
    names = sorted(file_names(folder, links=links) - set(ignore))
    both = [
        digests(_followed(folder / name, links), Algorithm.SHA256, Algorithm.BLAKE3)
        for name in names
    ]
    return Manifest(
        id=model_id,
        kind="base" if edit is None else "erased",
        family=family,
        status=status,
        created_at=time.time(),
        code_version=code_version,
        drawing=drawing,
        edit=edit,
        files={name: found for name, (found, _) in zip(names, both, strict=True)},
        blake3={name: found for name, (_, found) in zip(names, both, strict=True)},
        promote_if=promote_if,
    ).explicit()


def _followed(path: Path, links: bool) -> Path:
    return path.resolve() if links else path
