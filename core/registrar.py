"""What changes the models of an installation: each change is whole, signed, and passed on."""

import errno
import fcntl
import hashlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import (
    Misconfigured,
    ModelChanged,
    ModelExists,
    PromotionBlocked,
    StatusUnreachable,
    UntrustedModel,
)
from core.files import move_whole, read_plain, sync_folder
from core.manifests import Manifest, ModelStatus, Override
from core.model_folder import INCOMING
from core.registry import ModelRegistry
from core.reports import FILENAME as REPORT
from core.reports import MAX_REPORT_BYTES, Report
from core.signing import Signer

LOCKS = ".locks"
TRIES = 3
"""Of a change, while other hosts change the same model."""
TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
"""What a rename onto a folder with something in it, or onto a file, ends with."""


class Registrar:
    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._folder = registry.folder
        self._serials = registry.serials
        self._mirror = registry.mirror

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
            move_whole(folder, self._registry.path(manifest.id), by=self._folder / INCOMING)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            existing = self._registry.get(manifest.id)
            if existing.content_digest != manifest.content_digest:
                raise ModelExists(f"there is another model {manifest.id} already") from error
            shutil.rmtree(folder, ignore_errors=True)
            self._push(existing)
            return existing
        sync_folder(self._folder)
        self._pass_on(signed)
        return signed

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
            ModelNotFound, UntrustedModel, StatusUnreachable, ModelChanged.
            PromotionBlocked: says what is missing before the model may be served.
        """

        def update_of(manifest: Manifest) -> dict[str, Any] | None:
            if manifest.status is status and override is None:
                self._push(manifest)  # it may have failed the last time
                return None
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
                manifest.check_files(self._registry.path(model_id))
                lacks = self._registry.serving.missing(manifest)
                if lacks and override is None:
                    raise PromotionBlocked(f"model {model_id} is not promoted: {'; '.join(lacks)}")
                if lacks and override is not None:
                    noted = override.model_copy(update={"missing": tuple(lacks)})
                    update["overrides"] = (*manifest.overrides, noted)
            return update

        return self._change(model_id, update_of, signer)

    def has_report(self, model_id: str, report_id: str) -> bool:
        """Whether a report about a model is kept already, each file as it was signed.

        No change, but it is put into the bucket, if there is one: that may have failed.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        with self._changing(model_id):
            manifest = self._registry.get(model_id)
            found = self._registry.reports.has(manifest, report_id)
            if found:
                self._push(manifest)
            return found

    def add_report(self, model_id: str, report_id: str, folder: Path, signer: Signer) -> Manifest:
        """Keep the files in `folder` as a report about a model, and sign that they are one.

        One that is kept already under that id stays as it is: a job whose worker died after this
        line runs twice.

        Raises:
            ModelNotFound, ModelChanged.
            UntrustedModel: `folder` holds no report, or one about other weights.
        """
        try:
            report = Report.parse(read_plain(folder / REPORT, most_bytes=MAX_REPORT_BYTES))
        except OSError as error:
            raise UntrustedModel(f"{REPORT} cannot be read: {error.strerror}") from error

        def update_of(manifest: Manifest) -> dict[str, Any] | None:
            if report.model.digest != manifest.content_digest:
                raise UntrustedModel(f"the report is about other weights than those of {model_id}")
            if self._registry.reports.has(manifest, report_id):
                self._push(manifest)  # it may have failed the last time
                return None
            entry = self._registry.reports.keep(model_id, report_id, folder, report)
            return {"reports": manifest.reports | {report_id: entry}}

        return self._change(model_id, update_of, signer)

    def sign_again(self, model_id: str, signer: Signer, *, vouched: bool = False) -> Manifest:
        """Sign what a trusted key signed with the key that signs now; every file is checked.

        Args:
            vouched: whoever signed it, or nobody: the caller answers for the model. Its manifest
                must still be readable, and tell the truth about its files.

        Raises:
            ModelNotFound, UntrustedModel, ModelChanged.
        """

        def update_of(manifest: Manifest) -> dict[str, Any] | None:
            if manifest.signed_by == signer.key_id and not vouched:
                return None
            manifest.check_files(self._registry.path(model_id))
            self._registry.reports.of(manifest)
            return {}

        return self._change(model_id, update_of, signer, vouched=vouched)

    def discard(self, model_id: str, digest: str, *, is_unwanted: Callable[[], bool]) -> bool:
        """Remove a candidate of this host that nobody ordered; whether it is gone by this.

        In the bucket its manifest goes and its files stay, see `ModelMirror.withdraw`.

        Args:
            digest: of its content; another model of that id stays, as does one that was promoted.
            is_unwanted: asked last, when nobody can change the model any more.

        Raises:
            UntrustedModel, ModelChanged, StoreUnavailable.
            ModelsUnavailable: the bucket does not answer; then the model stays here, too.
        """
        with self._changing(model_id):
            if not self._registry.path(model_id).exists():
                return False  # not asked of the bucket, which would send it
            manifest = self._registry.get(model_id)
            if manifest.status is not ModelStatus.CANDIDATE or manifest.content_digest != digest:
                return False
            with self._serials.changing(model_id, manifest.serial):
                if not is_unwanted():
                    return False
                if self._mirror:
                    # First: whoever missed it here would fetch it again.
                    self._mirror.withdraw(model_id)
                self._take_away(model_id)
        return True

    def push_all(self, *, again: Iterable[str] = ()) -> list[str]:
        """Put every trusted model of this host where other hosts find it; their ids.

        Args:
            again: models whose files are sent though they are there; first they are checked here.

        Raises:
            Misconfigured: there is no such place.
            ModelNotFound, UntrustedModel: of one that is to be sent again.
        """
        if self._mirror is None:
            raise Misconfigured("models are shared by no bucket: set TRCE_S3_MODELS=true")
        for model_id in again:
            manifest = self._registry.get(model_id)
            manifest.check_files(self._registry.path(model_id))
            self._registry.reports.of(manifest)
            self._mirror.push(manifest, again=True)
        pushed = self._registry.all()
        for manifest in pushed:
            self._push(manifest)
        return [manifest.id for manifest in pushed]

    def _change(
        self,
        model_id: str,
        update_of: Callable[[Manifest], dict[str, Any] | None],
        signer: Signer,
        *,
        vouched: bool = False,
    ) -> Manifest:
        """Read a manifest, change it and write it: afresh, if another host was faster.

        Args:
            update_of: the fields that change, by their names; None: the manifest stays as it is.
            vouched: whoever signed what is there, and whether or not it is the newest one.
        """
        with self._changing(model_id):
            for tries_left in reversed(range(TRIES)):
                read = self._registry.unchecked if vouched else self._registry.get
                manifest = read(model_id)
                update = update_of(manifest)
                if update is None:
                    return manifest
                newest = self._serials.newest(model_id) if vouched else manifest.serial
                try:
                    with self._serials.changing(model_id, newest):
                        return self._rewrite(manifest, update, signer)
                except ModelChanged:
                    if not tries_left:
                        raise
        raise AssertionError

    def _rewrite(self, manifest: Manifest, update: dict[str, Any], signer: Signer) -> Manifest:
        update = {**update, "serial": self._next_serial(manifest)}
        changed = manifest.model_copy(update=update).signed(signer)
        # A file more beside the manifest would be one that it does not list.
        changed.write(self._registry.path(manifest.id), scratch=self._folder / LOCKS)
        self._pass_on(changed)
        return changed

    def _take_away(self, model_id: str) -> None:
        """All at once; what a crash leaves of it is in nobody's way (see `core/leavings.py`)."""
        away = self._folder / INCOMING / secrets.token_hex(8)
        away.parent.mkdir(exist_ok=True)
        self._registry.path(model_id).rename(away)
        sync_folder(self._folder)
        shutil.rmtree(away, ignore_errors=True)

    def _pass_on(self, manifest: Manifest) -> None:
        self._push(manifest)
        # Only after it was written: else a crash would leave a model that nobody trusts.
        self._serials.note(manifest.id, manifest.serial)

    def _push(self, manifest: Manifest) -> None:
        """Before anybody is told that it changed: other hosts then ask for it."""
        if self._mirror:
            self._mirror.push(manifest)

    def _next_serial(self, manifest: Manifest) -> int:
        newest = self._serials.newest(manifest.id)
        return max(int(time.time() * 1000), manifest.serial + 1, newest + 1)

    @contextmanager
    def _changing(self, model_id: str) -> Iterator[None]:
        """Within, no other process of this host changes the manifest."""
        locks = self._folder / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(model_id.encode()).hexdigest()
        with (locks / f"{name[:16]}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
