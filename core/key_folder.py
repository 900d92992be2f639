"""The keys of an installation on disk: one that signs, those that are trusted, those revoked.

    keys/signing.pem           the private key, mode 0600; trainer and service sign with it
    keys/trusted/<id>.pem      public keys; what one of them signed is accepted
    keys/revoked/<id>.pem      public keys; what they signed is accepted no longer
    keys/.lock                 held while keys are made, rotated or revoked

A key's id is the first 16 hex digits of the SHA-256 of its raw public bytes. Processes follow
these files while they run: whoever may write to this folder decides what is served.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from core.errors import Misconfigured, SigningKeyInUse, SigningKeyNotFound
from core.file_marks import FileMark, mark_of
from core.files import sync_folder, write_atomically

log = structlog.get_logger()


class KeyFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signing_path = folder / "signing.pem"
        self.trusted_folder = folder / "trusted"
        self.revoked_folder = folder / "revoked"

    def read_signing(self) -> Ed25519PrivateKey:
        """Raises Misconfigured when there is no usable key."""
        path = self.signing_path
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"no usable signing key at {path}; `trce up` makes one") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(f"{path} is not an Ed25519 key")
        return key

    def create(self) -> None:
        """Make the signing key, and trust it, unless there is one; one alone, whoever else tries.

        Raises:
            Misconfigured: the folder cannot be written.
        """
        if self.signing_path.exists():
            return
        with self._changing():
            if self.signing_path.exists():
                return
            key = Ed25519PrivateKey.generate()
            # Trust first: a crash between the two leaves no key whose signatures nobody accepts.
            trusted = self._trust(key.public_key())
            if not self._link(key):
                # Somebody whom the lock does not stop, on a file system that knows no locks.
                trusted.unlink(missing_ok=True)

    def rotate(self) -> str:
        """Sign with a new key from now on; what the old one signed stays trusted. Its id.

        Raises:
            Misconfigured: the folder cannot be written.
        """
        with self._changing():
            key = Ed25519PrivateKey.generate()
            self._trust(key.public_key())
            write_atomically(self.signing_path, _pem(key), mode=0o600)
        return key_id(key.public_key())

    def revoke(self, revoked: str) -> None:
        """Accept no longer what a key signed, in every process, from now on.

        Raises:
            SigningKeyNotFound: no such key is trusted.
            SigningKeyInUse: it is the one that signs.
            Misconfigured: the folder cannot be written.
        """
        with self._changing():
            if self.signing_path.exists() and revoked == key_id(self.read_signing().public_key()):
                raise SigningKeyInUse(f"key {revoked} signs; rotate it first, then revoke it")
            paths = [
                path for path, key in _read_all(self.trusted_folder) if key_id(key) == revoked
            ]
            if not paths:
                raise SigningKeyNotFound(
                    f"no trusted key {revoked}; `trce signing list` shows all"
                )
            self.revoked_folder.mkdir(exist_ok=True)
            for path in paths:
                path.rename(self.revoked_folder / f"{revoked}.pem")
            sync_folder(self.trusted_folder)
            sync_folder(self.revoked_folder)

    def trusted(self) -> dict[str, Ed25519PublicKey]:
        """By their ids; files that hold no key are passed over, and logged."""
        return {key_id(key): key for _, key in _read_all(self.trusted_folder)}

    def revoked(self) -> dict[str, Ed25519PublicKey]:
        return {key_id(key): key for _, key in _read_all(self.revoked_folder)}

    def broken(self) -> Path | None:
        """A trusted file that holds no key."""
        good = {path for path, _ in _read_all(self.trusted_folder)}
        return next((path for path in _pem_files(self.trusted_folder) if path not in good), None)

    def marks(self) -> tuple[FileMark, ...]:
        """Differs from what it was when a trusted or revoked key came, went or changed."""
        files = [*_pem_files(self.trusted_folder), *_pem_files(self.revoked_folder)]
        return tuple(mark for path in files if (mark := mark_of(path)))

    def _trust(self, key: Ed25519PublicKey) -> Path:
        path = self.trusted_folder / f"{key_id(key)}.pem"
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_atomically(path, pem)
        return path

    def _link(self, key: Ed25519PrivateKey) -> bool:
        """Put the key in its place, whole, unless there is one; whether there was none."""
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".signing.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_pem(key))
                file.flush()
                os.fsync(file.fileno())
            os.link(name, self.signing_path)
        except FileExistsError:
            return False
        finally:
            Path(name).unlink()
        sync_folder(self.folder)
        return True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise Misconfigured(f"{self.folder} cannot be written: {error.strerror}") from error


def key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pem"))


def _read_all(folder: Path) -> Iterator[tuple[Path, Ed25519PublicKey]]:
    for path in _pem_files(folder):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            log.warning("no public key", file=str(path), error=type(error).__name__)
            continue
        if isinstance(key, Ed25519PublicKey):
            yield path, key
        else:
            log.warning("no public key", file=str(path), error="not Ed25519")
