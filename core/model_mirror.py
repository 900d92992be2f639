"""Models in an S3-compatible bucket: put there by who makes them, fetched by who lacks them.

    models/<id>/manifest.json      the newest one
    files/<SHA-256>                a file of any model, whatever its name there

A host's folder of models is its copy. One process of a host fetches a model, the others wait for
it and use the same files; nobody sees a part of one, nor a file that is not as it was signed.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from core.bucket_files import BucketFiles
from core.digests import sha256
from core.errors import ModelsUnavailable, UntrustedModel
from core.files import sync_folder, sync_tree
from core.manifests import MAX_MANIFEST_BYTES, Manifest
from core.model_folder import MANIFEST
from core.signing import Verifier

MIB = 1 << 20
SPARE_BYTES = 256 * MIB
"""Of the disk, that models leave to everything else: a full one would stop more than them."""
DIGITS = 16

log = structlog.get_logger(__name__)


class ModelMirror:
    """All verbs raise ModelsUnavailable when the store does not answer or refuses."""

    def __init__(self, client: Any, bucket: str, folder: Path, verifier: Verifier) -> None:
        """
        Args:
            folder: that of the host's models.
        """
        self._s3 = client
        self._bucket = bucket
        self._files = BucketFiles(client, bucket)
        self._folder = folder
        self._verifier = verifier

    def push(self, manifest: Manifest, *, again: bool = False) -> None:
        """Put a model of this host into the bucket; files that are there already are not sent.

        The manifest goes last: who finds it finds every file that it lists.

        Args:
            again: send the files, too, that are there: one of them is not what it should be.
        """
        for name, digest in (manifest.files | manifest.report_files).items():
            self._files.put(self._folder / manifest.id / name, digest, again=again)
        with self._files.answering():
            self._s3.put_object(
                Bucket=self._bucket, Key=_manifest_key(manifest.id), Body=manifest.file_bytes()
            )

    def fetch(self, model_id: str) -> bool:
        """Bring this host's copy of a model up to date; False when the bucket has none.

        Raises:
            UntrustedModel: what is in the bucket is not what was signed; nothing is kept of it.
        """
        found = self._manifest(model_id)
        if found is None:
            return False
        with self._only_one(model_id):
            held = self._held(model_id)
            if held is None:
                self._download(found)
            elif held.content_digest != found.content_digest:
                raise UntrustedModel(
                    f"model {model_id}: this host has other weights than the bucket; remove one"
                )
            elif held.serial < found.serial:
                self._download_reports(found, self._folder / model_id)
                found.write(self._folder / model_id, scratch=self._locks)
        return True

    def withdraw(self, model_id: str) -> None:
        """Let no host find a model any more that lacks it; one that the bucket lacks is no error.

        Its files stay in the bucket: other models may list the same, and a host that pushes one
        sends none that it has seen there. So do copies that hosts have fetched.
        """
        with self._files.answering():
            self._s3.delete_object(Bucket=self._bucket, Key=_manifest_key(model_id))

    def _manifest(self, model_id: str) -> Manifest | None:
        key = _manifest_key(model_id)
        if self._files.size_of(key) is None:
            return None
        with self._files.answering():
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
            data: bytes = body.read(MAX_MANIFEST_BYTES + 1)
        manifest = Manifest.parse(data, model_id)
        if manifest.id != model_id:
            raise UntrustedModel(f"model {model_id}: the bucket has the manifest of {manifest.id}")
        manifest.check_signature(self._verifier)
        return manifest

    def _held(self, model_id: str) -> Manifest | None:
        try:
            return Manifest.read(self._folder / model_id)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _download(self, manifest: Manifest) -> None:
        """Into a folder that nobody looks into, which then becomes the model's by one rename.

        What came whole before the bucket went away, or this process, stays there for the next
        attempt.
        """
        digest = manifest.content_digest
        incoming = self._folder / ".incoming" / f"fetch-{manifest.id}.{digest[:DIGITS]}"
        incoming.mkdir(parents=True, exist_ok=True)
        try:
            _remove_all_but(manifest.files | manifest.report_files, incoming)
            wanted = {
                name: digest
                for name, digest in manifest.files.items()
                if not (incoming / name).exists()
            }
            self._check_disk(manifest.id, wanted)
            for name, digest in wanted.items():
                self._download_file(manifest.id, name, digest, incoming / name)
            self._download_reports(manifest, incoming)
            manifest.write(incoming, scratch=self._locks)
            sync_tree(incoming)
            incoming.rename(self._folder / manifest.id)
        except ModelsUnavailable:
            raise
        except OSError as error:
            shutil.rmtree(incoming, ignore_errors=True)
            raise ModelsUnavailable(
                f"model {manifest.id} cannot be kept on this host: {error.strerror}"
            ) from error
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        sync_folder(self._folder)
        log.info("fetched", model=manifest.id, files=len(wanted), of=len(manifest.files))

    def _check_disk(self, model_id: str, wanted: Mapping[str, str]) -> None:
        """There is room for the files: better asked before hours of fetching than after.

        Raises:
            ModelsUnavailable: with the numbers.
            UntrustedModel: the bucket lacks one of them.
        """
        wanted_bytes = sum(self._size(model_id, name, digest) for name, digest in wanted.items())
        free_bytes = shutil.disk_usage(self._folder).free
        if wanted and wanted_bytes + SPARE_BYTES > free_bytes:
            raise ModelsUnavailable(
                f"model {model_id}: {wanted_bytes // MIB} MiB are to be fetched, and the disk of "
                f"this host's models has {free_bytes // MIB} MiB free, of which "
                f"{SPARE_BYTES // MIB} are kept"
            )

    def _size(self, model_id: str, name: str, digest: str) -> int:
        size = self._files.size(digest)
        if size is None:
            raise UntrustedModel(f"model {model_id}: the bucket lacks {name}; push it again")
        return size

    def _download_reports(self, manifest: Manifest, folder: Path) -> None:
        """Those that `folder` lacks; the manifest that names them is written after them."""
        for name, digest in manifest.report_files.items():
            target = folder / name
            if target.is_file() and sha256(target) == digest:
                continue
            target.unlink(missing_ok=True)
            self._size(manifest.id, name, digest)
            self._download_file(manifest.id, name, digest, target)

    def _download_file(self, model_id: str, name: str, digest: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        found = self._files.fetch(digest, target)
        if found != digest:
            raise UntrustedModel(
                f"model {model_id}: {name} in the bucket has the digest {found[:12]}..., its "
                f"manifest says {digest[:12]}...; nothing was kept; on a host that has the model "
                f"whole, `trce models push --again {model_id}`"
            )

    @property
    def _locks(self) -> Path:
        locks = self._folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return locks

    @contextlib.contextmanager
    def _only_one(self, model_id: str) -> Iterator[None]:
        """Of the processes of this host, one at a time; a dead one holds nobody up."""
        with (self._locks / f"fetch-{model_id}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _manifest_key(model_id: str) -> str:
    return f"models/{model_id}/{MANIFEST}"


def _remove_all_but(wanted: Mapping[str, str], folder: Path) -> None:
    """Names -> digests: what is not one of those files, whole and as it should be, goes."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            continue
        digest = wanted.get(path.relative_to(folder).as_posix())
        if path.is_symlink() or digest is None or not path.is_file() or sha256(path) != digest:
            path.unlink()
