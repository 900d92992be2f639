"""The models of an installation: one folder each, in one folder.

models/<id>/manifest.json ...       a model
making/<name>.<random>/             a model being made, until it is signed; in nobody else's reach
models/.incoming/<random>/          one that comes from another file system, until it is whole
models/.locks/<digest>.lock         held while a manifest is read, changed and written there
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from core.errors import ModelNotFound, ModelsUnavailable, UntrustedModel
from core.kept_reports import KeptReports
from core.making import Making
from core.manifest_reader import ManifestReader
from core.manifests import Manifest
from core.model_folder import INCOMING, MANIFEST
from core.schedulers import SCHEDULER_CONFIG
from core.serial_record import NoSerials, SerialRecord
from core.serving import Serving
from core.signed_files import signed_file
from core.signing import Verifier
from core.specs import ModelId

READINGS = 3
DEFAULT = "default"
"""The model name that requests have which name none."""

_model_id: TypeAdapter[str] = TypeAdapter(ModelId)


class Pointed(Protocol):
    """Where operators point the name `default`."""

    def current(self) -> str:
        """The id of the model that it means now."""


class Mirror(Protocol):
    """Where models are that this host may lack."""

    def push(self, manifest: Manifest, *, again: bool = False) -> None:
        """A model of this host, as it is now; `again`: what is there already, too."""

    def fetch(self, model_id: str) -> bool:
        """Bring this host's copy of a model up to date; False when there is none to be had."""

    def withdraw(self, model_id: str) -> None:
        """Hosts that lack a model are to find it no more."""


class ModelRegistry:
    """Reads are checked against the trusted keys; a model that fails is never returned.

    What changes models is the `Registrar`.
    """

    def __init__(
        self,
        folder: Path,
        verifier: Verifier,
        *,
        serve_unerased_base: bool,
        default_model: str,
        aliases: Mapping[str, str] | None = None,
        require_suites: Sequence[str] = (),
        serials: SerialRecord | None = None,
        pointed: Pointed | None = None,
        mirror: Mirror | None = None,
        making: Path | None = None,
    ) -> None:
        """
        Args:
            making: where models are made, and read once more to be signed: nobody may write there
                who may not sign. A hidden folder in `folder` if none.
            mirror: has the models of all hosts; None where `folder` has them.
            serials: what refuses manifests that were put back; None where no Redis is at hand.
            aliases: other names that clients may use -> a model's id, or `default`.
            pointed: where `default` points; None: to `default_model`, where no Redis is at hand.
            require_suites: what a report must measure before an erased model is served.
        """
        self.folder = folder
        self.serials: SerialRecord = NoSerials() if serials is None else serials
        self.mirror = mirror
        self.making = Making(making or folder / INCOMING)
        self.reports = KeptReports(folder)
        self.serving = Serving(
            self.reports, serve_unerased_base=serve_unerased_base, require_suites=require_suites
        )
        self._manifests = ManifestReader(verifier)
        self._default_model = default_model
        self._pointed = pointed
        self.aliases = aliases or {}

    def resolve(self, name: str) -> str:
        """A model name a client may send -> the model's id."""
        meant = self.aliases.get(name, name)
        if meant != DEFAULT:
            return meant
        return self._pointed.current() if self._pointed else self._default_model

    def known_as(self, name: str) -> str:
        """The id of the model that a name of any form means.

        Raises:
            ModelNotFound, UntrustedModel, StoreUnavailable.
        """
        return self.get(self.resolve(name)).id

    def path(self, model_id: str) -> Path:
        return self.folder / model_id

    def get(self, model_id: str) -> Manifest:
        """A model's manifest, its signature checked, and that it is the newest one there was.

        Its files are checked by who loads them.

        Raises:
            ModelNotFound, UntrustedModel.
            StoreUnavailable: which one is the newest is not known yet.
        """
        for _ in range(READINGS):
            manifest = self._read_or_fetch(model_id)
            newest = self.serials.newest(model_id)
            if manifest.serial >= newest:
                self.serials.note(model_id, manifest.serial)
                return manifest
            # Another process may have written a newer one since it was read, or another host.
            self._fetch(model_id)
        raise UntrustedModel(
            f"model {model_id}: its manifest was replaced by a newer one once, and put back "
            f"(serial {manifest.serial}, {newest} was seen); or this host's copy is behind"
        )

    def is_at_hand(self, model_id: str) -> bool:
        """Whether nothing of a model or its base need be fetched before it is looked at."""
        if self.mirror is None:
            return True
        try:
            edit = self.unchecked(model_id).edit
            if edit is not None:
                # No further: nobody has signed yet what is read here.
                self.unchecked(edit.base_model)
        except ModelNotFound:
            return not _is_model_id(model_id)
        except UntrustedModel:
            pass  # who looks at it is told
        return True

    def served(self, model_id: str) -> Manifest:
        """Raises ModelNotFound, UntrustedModel, ModelNotServed, StoreUnavailable."""
        manifest = self.get(model_id)
        self.serving.check(manifest)
        return manifest

    def scheduler_config(self, manifest: Manifest) -> dict[str, Any]:
        """The `scheduler_config.json` of a model's base.

        Raises:
            ModelNotFound, UntrustedModel, StoreUnavailable.
        """
        base = self.get(manifest.edit.base_model) if manifest.edit else manifest
        told = signed_file(self.path(base.id), base, SCHEDULER_CONFIG, base.files)
        return dict(json.loads(told))

    def unchecked(self, model_id: str) -> Manifest:
        """A model's manifest, whoever signed it, or nobody: it proves nothing.

        Raises:
            ModelNotFound.
            UntrustedModel: it is none, or that of another model.
        """
        return self._read(model_id, trusted=False)

    def _read_or_fetch(self, model_id: str) -> Manifest:
        try:
            return self._read(model_id, trusted=True)
        except ModelNotFound:
            if not self._fetch(model_id):
                raise
            return self._read(model_id, trusted=True)

    def _fetch(self, model_id: str) -> bool:
        if self.mirror is None or not _is_model_id(model_id):
            return False
        return self.mirror.fetch(model_id)

    def _read(self, model_id: str, *, trusted: bool) -> Manifest:
        """
        Args:
            trusted: only if a trusted key signed it.
        """
        try:
            _model_id.validate_python(model_id)
            manifest = self._manifests.read(self.path(model_id), trusted=trusted)
        except (ValidationError, FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotFound(
                f"no model {model_id!r}; `trce models list` and GET /v1/models list them"
            ) from error
        if manifest.id != model_id:
            raise UntrustedModel(f"model {model_id}: its manifest is that of {manifest.id}")
        return manifest

    def all(self) -> list[Manifest]:
        """Every trusted model, oldest first; one bad folder hides none of the others.

        Raises:
            StoreUnavailable: as `get`, and so would every model; none of them is bad.
        """
        trusted, _ = self.survey()
        return trusted

    def untrusted(self) -> dict[str, str]:
        """Folders that hold no model to be trusted -> why. Raises StoreUnavailable, as `all`."""
        _, reasons = self.survey()
        return reasons

    def survey(self) -> tuple[list[Manifest], dict[str, str]]:
        """What `all` and `untrusted` return, of one look at the folder; raises what they do."""
        trusted, reasons = [], {}
        for name in self._names():
            try:
                trusted.append(self.get(name))
            except UntrustedModel as error:
                reasons[name] = str(error)
            except ModelsUnavailable as error:
                # Of a newer one that only the bucket has: this host's copy is out of date.
                reasons[name] = f"model {name} cannot be brought up to date for now: {error}"
            except ModelNotFound:
                reasons[name] = f"{name} is no model: {MANIFEST} is missing, or the name is no id"
        return sorted(trusted, key=lambda one: (one.created_at, one.id)), reasons

    def _names(self) -> list[str]:
        """Of all folders, and links to them, but those of our own."""
        try:
            return sorted(
                entry.name
                for entry in self.folder.iterdir()
                if not entry.name.startswith(".") and (entry.is_dir() or entry.is_symlink())
            )
        except FileNotFoundError:
            return []


def _is_model_id(text: str) -> bool:
    try:
        _model_id.validate_python(text)
    except ValidationError:
        return False
    return True
