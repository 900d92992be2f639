"""The models of an installation: one folder each, in one folder.

models/<id>/manifest.json ...       a model
models/.incoming/<anything>/        a model being made; becomes visible by one rename
"""

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core.errors import (
    ModelExists,
    ModelNotFound,
    ModelNotServed,
    StatusUnreachable,
    UntrustedModel,
)
from core.files import sha256, sync_folder
from core.manifests import FILENAME, Drawing, Edit, Manifest, ModelStatus, file_names
from core.signing import Signer, Verifier
from core.specs import ModelId

INCOMING = ".incoming"

_model_id: TypeAdapter[str] = TypeAdapter(ModelId)


class ModelRegistry:
    """Reads are checked against the trusted keys; a model that fails is never returned."""

    def __init__(
        self,
        folder: Path,
        verifier: Verifier,
        *,
        serve_unerased_base: bool,
        default_model: str,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            aliases: other names that clients may use -> a model's id, or `default`.
        """
        self._folder = folder
        self._verifier = verifier
        self._serve_unerased_base = serve_unerased_base
        self._default_model = default_model
        self._aliases = aliases or {}

    def resolve(self, name: str) -> str:
        """A model name a client may send -> the model's id."""
        meant = self._aliases.get(name, name)
        return self._default_model if meant == "default" else meant

    def known_as(self, name: str) -> str:
        """The id of the model that a name of any form means.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        return self.get(self.resolve(name)).id

    def path(self, model_id: str) -> Path:
        return self._folder / model_id

    def get(self, model_id: str) -> Manifest:
        """A model's manifest, its signature checked; its files are checked by who loads them.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        try:
            _model_id.validate_python(model_id)
            manifest = Manifest.read(self.path(model_id))
        except (ValidationError, FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotFound(f"no model {model_id!r}; GET /v1/models lists them") from error
        if manifest.id != model_id:
            raise UntrustedModel(f"model {model_id}: its manifest is that of {manifest.id}")
        manifest.check_signature(self._verifier)
        return manifest

    def all(self) -> list[Manifest]:
        """Every trusted model, oldest first."""
        found = []
        for folder in self._folder.glob(f"*/{FILENAME}"):
            try:
                found.append(self.get(folder.parent.name))
            except (UntrustedModel, ModelNotFound):
                continue
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.id))

    def untrusted(self) -> dict[str, str]:
        """Folders that look like models but are not to be trusted -> why."""
        reasons = {}
        for folder in self._folder.glob(f"*/{FILENAME}"):
            try:
                self.get(folder.parent.name)
            except (UntrustedModel, ModelNotFound) as error:
                reasons[folder.parent.name] = str(error)
        return reasons

    def is_served(self, manifest: Manifest) -> bool:
        if not manifest.erases and not self._serve_unerased_base:
            return False
        return manifest.status is ModelStatus.SERVING

    def served(self, model_id: str) -> Manifest:
        """Raises ModelNotFound, UntrustedModel, ModelNotServed."""
        manifest = self.get(model_id)
        if self.is_served(manifest):
            return manifest
        if not manifest.erases:
            what = "base model" if manifest.kind == "base" else "model"
            raise ModelNotServed(
                f"{model_id} is a {what} from which nothing was erased, and this installation "
                "does not serve those; name an erased model, or set TRCE_SERVE_UNERASED_BASE=true"
            )
        raise ModelNotServed(
            f"model {model_id} is {manifest.status}, not serving; promote it first"
        )

    def set_status(self, model_id: str, status: ModelStatus, signer: Signer) -> Manifest:
        """Raises ModelNotFound, UntrustedModel, StatusUnreachable."""
        manifest = self.get(model_id)
        if manifest.status is status:
            return manifest
        if status is ModelStatus.CANDIDATE:
            raise StatusUnreachable("a model that was promoted or retired is no candidate again")
        if status is ModelStatus.RETIRED and manifest.status is not ModelStatus.SERVING:
            raise StatusUnreachable(
                f"model {model_id} is {manifest.status}; only a serving one retires"
            )
        # What is promoted was whole at that moment; workers check again when they load it.
        if status is ModelStatus.SERVING:
            manifest.check_files(self.path(model_id))
        changed = manifest.model_copy(update={"status": status}).signed(signer)
        changed.write(self.path(model_id))
        return changed

    def incoming(self, name: str) -> Path:
        """An empty folder in which to make a model before `add`."""
        folder = self._folder / INCOMING / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def clear_incoming(self, name: str) -> None:
        shutil.rmtree(self._folder / INCOMING / name, ignore_errors=True)

    def add(self, manifest: Manifest, folder: Path, signer: Signer) -> Manifest:
        """Sign the model made in `folder` (see `incoming`) and make it visible, all at once.

        The same model again is no error: a job whose worker died after this line runs twice.

        Raises:
            ModelExists: the id is taken by other weights.
        """
        signed = manifest.signed(signer)
        signed.write(folder)
        target = self.path(manifest.id)
        try:
            folder.rename(target)
        except OSError as error:
            existing = self.get(manifest.id)
            if existing.content_digest != manifest.content_digest:
                raise ModelExists(f"there is another model {manifest.id} already") from error
            shutil.rmtree(folder, ignore_errors=True)
            return existing
        sync_folder(self._folder)
        return signed

    def remove(self, model_id: str) -> None:
        """Raises ModelNotFound."""
        self.get(model_id)
        shutil.rmtree(self.path(model_id))


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
    )
