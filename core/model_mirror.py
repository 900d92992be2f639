"""Models in an S3-compatible bucket: put there by who makes them, fetched by who lacks them.

    models/<id>/manifest.json      the newest one
    files/<SHA-256>                a file of any model, whatever its name there

A host's folder of models is its copy. One process of a host fetches a model, the others wait for
it and use the same files; nobody sees a part of one, nor a file that is not as it was signed.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from core.errors import ModelsUnavailable, UntrustedModel
from core.files import CHUNK_BYTES, sha256, sync_folder, sync_tree
from core.manifests import FILENAME, MAX_MANIFEST_BYTES, Manifest
from core.signing import Verifier

MISSING = {"NoSuchKey", "404", "NotFound"}

log = structlog.get_logger(__name__)


class ModelMirror:
    """Both verbs raise ModelsUnavailable when the store does not answer or refuses."""

    def __init__(self, client: Any, bucket: str, folder: Path, verifier: Verifier) -> None:
        """
        Args:
            folder: that of the host's models.
        """
        self._s3 = client
        self._bucket = bucket
        self._folder = folder
        self._verifier = verifier

    def push(self, manifest: Manifest) -> None:
        """Put a model of this host into the bucket; files that are there already are not sent.

        The manifest goes last: who finds it finds every file that it lists.
        """
        with self._answering():
            for name, digest in (manifest.files | manifest.report_files).items():
                if not self._has(f"files/{digest}"):
                    path = self._folder / manifest.id / name
                    self._s3.upload_file(str(path), self._bucket, f"files/{digest}")
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

    def _manifest(self, model_id: str) -> Manifest | None:
        key = _manifest_key(model_id)
        with self._answering():
            if not self._has(key):
                return None
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
        """Into a folder that nobody looks into, which then becomes the model's by one rename."""
        incoming = self._folder / ".incoming" / f"fetch-{manifest.id}.{secrets.token_hex(8)}"
        incoming.mkdir(parents=True)
        try:
            for name, digest in manifest.files.items():
                self._download_file(manifest.id, name, digest, incoming / name)
            self._download_reports(manifest, incoming)
            manifest.write(incoming)
            sync_tree(incoming)
            incoming.rename(self._folder / manifest.id)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        sync_folder(self._folder)
        log.info("fetched", model=manifest.id, files=len(manifest.files))

    def _download_reports(self, manifest: Manifest, folder: Path) -> None:
        """Those that `folder` lacks; the manifest that names them is written after them."""
        for name, digest in manifest.report_files.items():
            target = folder / name
            if target.is_file() and sha256(target) == digest:
                continue
            target.unlink(missing_ok=True)
            self._download_file(manifest.id, name, digest, target)

    def _download_file(self, model_id: str, name: str, digest: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        found = hashlib.sha256()
        with self._answering(), target.open("xb") as file:
            if not self._has(f"files/{digest}"):
                raise UntrustedModel(f"model {model_id}: the bucket lacks {name}; push it again")
            body = self._s3.get_object(Bucket=self._bucket, Key=f"files/{digest}")["Body"]
            while chunk := body.read(CHUNK_BYTES):
                file.write(chunk)
                found.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        if found.hexdigest() != digest:
            raise UntrustedModel(
                f"model {model_id}: {name} in the bucket has the digest "
                f"{found.hexdigest()[:12]}..., its manifest says {digest[:12]}...; nothing was "
                "kept, push the model again"
            )

    def _has(self, key: str) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415

        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in MISSING:
                return False
            raise
        return True

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

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        where = f"the bucket {self._bucket}"
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ModelsUnavailable(f"{where} refuses a model: {code}") from error
        except (BotoCoreError, Boto3Error) as error:
            # Not its message: that may quote an address or a key's name.
            raise ModelsUnavailable(f"{where} does not answer ({type(error).__name__})") from error


def _manifest_key(model_id: str) -> str:
    return f"models/{model_id}/{FILENAME}"
