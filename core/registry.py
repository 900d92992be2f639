"""The models of an installation: one folder each, in one folder.

models/<id>/manifest.json ...       a model
making/<name>.<random>/             a model being made, until it is signed; in nobody else's reach
models/.incoming/<random>/          one that comes from another file system, until it is whole
models/.locks/<digest>.lock         held while a manifest is read, changed and written there
"""

import errno
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from core.errors import (
    Misconfigured,
    ModelExists,
    ModelNotFound,
    ModelNotServed,
    PromotionBlocked,
    ReportNotFound,
    StatusUnreachable,
    UntrustedModel,
)
from core.files import move_whole, sha256, sync_folder
from core.gate import missing
from core.making import Making
from core.manifest_reader import ManifestReader
from core.manifests import (
    FILENAME,
    REPORTS,
    Manifest,
    ModelStatus,
    Override,
    ReportEntry,
)
from core.reports import FILENAME as REPORT
from core.reports import PAGE, Report
from core.signing import Signer, Verifier
from core.specs import ModelId

INCOMING = ".incoming"
LOCKS = ".locks"
READINGS = 3
TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
"""What a rename onto a folder with something in it, or onto a file, ends with."""
MAX_REMEMBERED = 256

_model_id: TypeAdapter[str] = TypeAdapter(ModelId)


class SerialRecord(Protocol):
    """Remembers the newest manifest of each model, outside the folder of models."""

    def newest(self, model_id: str) -> int:
        """The highest serial that was seen of a model; 0: none."""

    def note(self, model_id: str, serial: int) -> None:
        """A manifest with this serial is signed by a trusted key: lower ones are out of date."""


class Mirror(Protocol):
    """Where models are that this host may lack."""

    def push(self, manifest: Manifest) -> None:
        """A model of this host, as it is now."""

    def fetch(self, model_id: str) -> bool:
        """Bring this host's copy of a model up to date; False when there is none to be had."""


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
        require_suites: Sequence[str] = (),
        serials: SerialRecord | None = None,
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
            require_suites: what a report must measure before an erased model is served.
        """
        self._folder = folder
        self._manifests = ManifestReader(verifier)
        self._serve_unerased_base = serve_unerased_base
        self._default_model = default_model
        self._aliases = aliases or {}
        self._require_suites = tuple(require_suites)
        self.making = Making(making or folder / INCOMING)
        self._serials = serials
        self._mirror = mirror
        self._lacking: dict[str, list[str]] = {}

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
        """A model's manifest, its signature checked, and that it is the newest one there was.

        Its files are checked by who loads them.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        for _ in range(READINGS):
            manifest = self._read_or_fetch(model_id)
            newest = self._serials.newest(model_id) if self._serials else 0
            if manifest.serial >= newest:
                self._note(manifest)
                return manifest
            # Another process may have written a newer one since it was read, or another host.
            self._fetch(model_id)
        raise UntrustedModel(
            f"model {model_id}: its manifest was replaced by a newer one once, and put back "
            f"(serial {manifest.serial}, {newest} was seen); or this host's copy is behind"
        )

    def scheduler_config(self, manifest: Manifest) -> dict[str, Any]:
        """The `scheduler_config.json` of a model's base.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        base = self.get(manifest.edit.base_model) if manifest.edit else manifest
        return dict(json.loads(self._file(base, "scheduler/scheduler_config.json", base.files)))

    def _read_or_fetch(self, model_id: str) -> Manifest:
        try:
            return self._read(model_id, trusted=True)
        except ModelNotFound:
            if not self._fetch(model_id):
                raise
            return self._read(model_id, trusted=True)

    def _fetch(self, model_id: str) -> bool:
        if self._mirror is None or not _is_model_id(model_id):
            return False
        return self._mirror.fetch(model_id)

    def _read(self, model_id: str, *, trusted: bool) -> Manifest:
        """
        Args:
            trusted: only if a trusted key signed it.
        """
        try:
            _model_id.validate_python(model_id)
            manifest = self._manifests.read(self.path(model_id), trusted=trusted)
        except (ValidationError, FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotFound(f"no model {model_id!r}; GET /v1/models lists them") from error
        if manifest.id != model_id:
            raise UntrustedModel(f"model {model_id}: its manifest is that of {manifest.id}")
        return manifest

    def all(self) -> list[Manifest]:
        """Every trusted model, oldest first; one bad folder hides none of the others."""
        trusted, _ = self.survey()
        return trusted

    def untrusted(self) -> dict[str, str]:
        """Folders that hold no model to be trusted -> why."""
        _, reasons = self.survey()
        return reasons

    def survey(self) -> tuple[list[Manifest], dict[str, str]]:
        """What `all` and `untrusted` return, of one look at the folder."""
        trusted, reasons = [], {}
        for name in self._names():
            try:
                trusted.append(self.get(name))
            except UntrustedModel as error:
                reasons[name] = str(error)
            except ModelNotFound:
                reasons[name] = f"{name} is no model: {FILENAME} is missing, or the name is no id"
        return sorted(trusted, key=lambda one: (one.created_at, one.id)), reasons

    def _names(self) -> list[str]:
        """Of all folders, and links to them, but those of our own."""
        try:
            return sorted(
                entry.name
                for entry in self._folder.iterdir()
                if not entry.name.startswith(".") and (entry.is_dir() or entry.is_symlink())
            )
        except FileNotFoundError:
            return []

    def is_served(self, manifest: Manifest) -> bool:
        if not manifest.erases and not self._serve_unerased_base:
            return False
        try:
            return manifest.status is ModelStatus.SERVING and not self._lacks(manifest)
        except UntrustedModel:
            return False

    def served(self, model_id: str) -> Manifest:
        """Raises ModelNotFound, UntrustedModel, ModelNotServed."""
        manifest = self.get(model_id)
        self.check_served(manifest)
        return manifest

    def check_served(self, manifest: Manifest) -> None:
        """Raises ModelNotServed."""
        if self.is_served(manifest):
            return
        if not manifest.erases:
            what = "base model" if manifest.kind == "base" else "model"
            raise ModelNotServed(
                f"{manifest.id} is a {what} from which nothing was erased, and this installation "
                "does not serve those; name an erased model, or set TRCE_SERVE_UNERASED_BASE=true"
            )
        if manifest.status is ModelStatus.SERVING:
            raise ModelNotServed(
                f"model {manifest.id} was promoted, and is not served as long as this is so: "
                f"{'; '.join(self._lacks(manifest))}"
            )
        raise ModelNotServed(
            f"model {manifest.id} is {manifest.status}, not serving; promote it first"
        )

    def missing(self, manifest: Manifest) -> list[str]:
        """What the model lacks before it may be served, in words; a base lacks nothing.

        Raises:
            UntrustedModel: a report is not as the manifest says.
        """
        if not manifest.erases:
            return []
        return missing(manifest, self.reports(manifest), required=self._require_suites)

    def _lacks(self, manifest: Manifest) -> list[str]:
        """What this installation demands to be measured, and no report does, nor was overridden.

        Settings may have become stricter since the model was promoted. Its reports are read again
        when the manifest has changed.

        Raises:
            UntrustedModel: a report is not as the manifest says.
        """
        if not manifest.erases or not self._require_suites:
            return []
        assert manifest.signature is not None  # `get` returns signed ones only
        version = manifest.signature.value
        if version not in self._lacking:
            overridden = {what for one in manifest.overrides for what in one.missing}
            without_terms = manifest.model_copy(update={"promote_if": None})
            found = [what for what in self.missing(without_terms) if what not in overridden]
            while len(self._lacking) >= MAX_REMEMBERED:
                del self._lacking[next(iter(self._lacking))]
            self._lacking[version] = found
        return self._lacking[version]

    def set_status(
        self,
        model_id: str,
        status: ModelStatus,
        signer: Signer,
        *,
        override: Override | None = None,
    ) -> Manifest:
        """
        Args:
            override: serve the model whatever it lacks; goes into its manifest with what that is.

        Raises:
            ModelNotFound, UntrustedModel, StatusUnreachable.
            PromotionBlocked: says what is missing before the model may be served.
        """
        with self._changing(model_id):
            manifest = self.get(model_id)
            if manifest.status is status and override is None:
                self._push(manifest)  # it may have failed the last time
                return manifest
            if status is ModelStatus.CANDIDATE:
                raise StatusUnreachable(
                    "a model that was promoted or retired is no candidate again"
                )
            if status is ModelStatus.RETIRED and manifest.status is not ModelStatus.SERVING:
                raise StatusUnreachable(
                    f"model {model_id} is {manifest.status}; only a serving one retires"
                )
            update: dict[str, Any] = {"status": status}
            if status is ModelStatus.SERVING:
                # What is promoted was whole at that moment; workers check again when they load it.
                manifest.check_files(self.path(model_id))
                lacks = self.missing(manifest)
                if lacks and override is None:
                    raise PromotionBlocked(f"model {model_id} is not promoted: {'; '.join(lacks)}")
                if lacks and override is not None:
                    noted = override.model_copy(update={"missing": tuple(lacks)})
                    update["overrides"] = (*manifest.overrides, noted)
            return self._rewrite(manifest, update, signer)

    def add_report(self, model_id: str, report_id: str, folder: Path, signer: Signer) -> Manifest:
        """Keep the files in `folder` as a report about a model, and sign that they are one.

        The same report again is no error.

        Raises:
            ModelNotFound.
            UntrustedModel: `folder` holds no report, or one about other weights.
        """
        report = Report.parse((folder / REPORT).read_bytes())
        with self._changing(model_id):
            manifest = self.get(model_id)
            if report.model.digest != manifest.content_digest:
                raise UntrustedModel(f"the report is about other weights than those of {model_id}")
            target = self.path(model_id) / REPORTS / report_id
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            shutil.copytree(folder, target)
            entry = ReportEntry(
                created_at=report.created_at,
                files={name: sha256(target / name) for name in (REPORT, PAGE)},
            )
            update = {"reports": manifest.reports | {report_id: entry}}
            return self._rewrite(manifest, update, signer)

    def sign_again(self, model_id: str, signer: Signer, *, vouched: bool = False) -> Manifest:
        """Sign what a trusted key signed with the key that signs now; every file is checked.

        Args:
            vouched: whoever signed it, or nobody: the caller answers for the model. Its manifest
                must still be readable, and tell the truth about its files.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        with self._changing(model_id):
            manifest = self._read(model_id, trusted=False) if vouched else self.get(model_id)
            if manifest.signed_by == signer.key_id and not vouched:
                return manifest
            manifest.check_files(self.path(model_id))
            self.reports(manifest)
            return self._rewrite(manifest, {}, signer)

    def reports(self, manifest: Manifest) -> list[Report]:
        """Every report about a model, checked against its manifest; oldest first.

        Raises:
            UntrustedModel.
        """
        found = [
            Report.parse(self.report_file(manifest, name, REPORT)) for name in manifest.reports
        ]
        return sorted(found, key=lambda report: report.created_at)

    def report_file(self, manifest: Manifest, report_id: str, name: str) -> bytes:
        """A file of a report, as it was signed.

        Raises:
            ReportNotFound.
            UntrustedModel: it is missing, or not as the manifest says.
        """
        entry = manifest.reports.get(report_id)
        if entry is None or name not in entry.files:
            raise ReportNotFound(f"model {manifest.id} has no report {report_id}")
        return self._file(manifest, f"{REPORTS}/{report_id}/{name}", manifest.report_files)

    def _file(self, manifest: Manifest, name: str, digests: Mapping[str, str]) -> bytes:
        """A small file of a model, read once. Raises UntrustedModel."""
        try:
            data = (self.path(manifest.id) / name).read_bytes()
        except OSError as error:
            raise UntrustedModel(f"model {manifest.id}: {name} is missing") from error
        if hashlib.sha256(data).hexdigest() != digests.get(name):
            raise UntrustedModel(f"model {manifest.id}: {name} differs from its manifest")
        return data

    def _rewrite(self, manifest: Manifest, update: dict[str, Any], signer: Signer) -> Manifest:
        update = {**update, "serial": self._next_serial(manifest)}
        changed = manifest.model_copy(update=update).signed(signer)
        # A file more beside the manifest would be one that it does not list.
        changed.write(self.path(manifest.id), scratch=self._folder / LOCKS)
        self._push(changed)
        self._note(changed)
        return changed

    def push_all(self) -> list[str]:
        """Put every trusted model of this host where other hosts find it; their ids.

        Raises:
            Misconfigured: there is no such place.
        """
        if self._mirror is None:
            raise Misconfigured("models are shared by no bucket: set TRCE_S3_MODELS=true")
        pushed = self.all()
        for manifest in pushed:
            self._push(manifest)
        return [manifest.id for manifest in pushed]

    def _push(self, manifest: Manifest) -> None:
        """Before anybody is told that it changed: other hosts then ask for it."""
        if self._mirror:
            self._mirror.push(manifest)

    def _note(self, manifest: Manifest) -> None:
        """Only after it was written: else a crash would leave a model that nobody trusts."""
        if self._serials:
            self._serials.note(manifest.id, manifest.serial)

    def _next_serial(self, manifest: Manifest) -> int:
        newest = self._serials.newest(manifest.id) if self._serials else 0
        return max(int(time.time() * 1000), manifest.serial + 1, newest + 1)

    @contextmanager
    def _changing(self, model_id: str) -> Iterator[None]:
        """Within, no other process changes the manifest: it is read, changed and written."""
        locks = self._folder / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(model_id.encode()).hexdigest()
        with (locks / f"{name[:16]}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add(self, manifest: Manifest, folder: Path, signer: Signer) -> Manifest:
        """Sign the model made in `folder` (see `making`) and make it visible, all at once.

        The same model again is no error: a job whose worker died after this line runs twice.

        Raises:
            ModelExists: the id is taken by other weights.
        """
        newest = manifest.model_copy(update={"serial": self._next_serial(manifest)})
        signed = newest.signed(signer)
        signed.write(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            move_whole(folder, self.path(manifest.id), by=self._folder / INCOMING)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            existing = self.get(manifest.id)
            if existing.content_digest != manifest.content_digest:
                raise ModelExists(f"there is another model {manifest.id} already") from error
            shutil.rmtree(folder, ignore_errors=True)
            self._push(existing)
            return existing
        sync_folder(self._folder)
        self._push(signed)
        self._note(signed)
        return signed

    def remove(self, model_id: str) -> None:
        """Raises ModelNotFound."""
        self.get(model_id)
        shutil.rmtree(self.path(model_id))


def _is_model_id(text: str) -> bool:
    try:
        _model_id.validate_python(text)
    except ValidationError:
        return False
    return True
