"""Ed25519 signatures over canonical JSON, by the keys of a `core.key_folder`.

Both signers and verifiers follow the files while they run: a key that is rotated or revoked is so
in every process from its next signature or check on.
"""

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict

from core.errors import Misconfigured, UntrustedModel
from core.file_marks import FileMark, mark_of
from core.key_folder import KeyFolder, key_id


class Signature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    value: str
    """Base64 of the 64 signature bytes."""


def canonical(document: dict[str, Any]) -> bytes:
    """One byte string for one document: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Signer:
    def __init__(self, keys: KeyFolder) -> None:
        """Raises Misconfigured when there is no usable key."""
        self._keys = keys
        self._read: tuple[FileMark | None, Ed25519PrivateKey] = self._read_now()

    @classmethod
    def load(cls, keys_dir: Path) -> "Signer":
        """Raises Misconfigured when there is no usable key."""
        return cls(KeyFolder(keys_dir))

    @classmethod
    def load_or_create(cls, keys_dir: Path) -> "Signer":
        """The installation's key; on first use one is made, and trusted. Raises Misconfigured."""
        keys = KeyFolder(keys_dir)
        keys.create()
        return cls(keys)

    @property
    def key_id(self) -> str:
        return key_id(self._key().public_key())

    def sign(self, document: dict[str, Any]) -> Signature:
        """Raises Misconfigured: the key is gone since."""
        key = self._key()
        value = base64.b64encode(key.sign(canonical(document))).decode()
        return Signature(key_id=key_id(key.public_key()), value=value)

    def _key(self) -> Ed25519PrivateKey:
        if self._read[0] != mark_of(self._keys.signing_path):
            self._read = self._read_now()
        return self._read[1]

    def _read_now(self) -> tuple[FileMark | None, Ed25519PrivateKey]:
        # The mark first: if the file changes in between, it is read once more.
        return mark_of(self._keys.signing_path), self._keys.read_signing()


class Verifier:
    def __init__(self, keys: KeyFolder) -> None:
        self._keys = keys
        self._read = self._read_now()

    @classmethod
    def load(cls, keys_dir: Path) -> "Verifier":
        """Raises Misconfigured when a trusted key cannot be read, or there is none.

        One that comes to be so later is passed over.
        """
        keys = KeyFolder(keys_dir)
        if broken := keys.broken():
            raise Misconfigured(f"{broken} is not an Ed25519 public key in PEM form")
        if not keys.trusted():
            raise Misconfigured(
                f"no trusted public key below {keys.trusted_folder}; `trce setup` makes one where "
                "nothing is yet, else name the installation: --data-dir, or TRCE_DATA_DIR"
            )
        return cls(keys)

    def trusts(self, one: str) -> bool:
        """Whether what the key of this id signs is accepted."""
        trusted, _ = self._followed()
        return one in trusted

    def marks(self) -> tuple[FileMark, ...]:
        """Differ from what they were when other keys are trusted or revoked."""
        return self._keys.marks()

    def check(
        self, document: dict[str, Any], signature: Signature, *, also_revoked: bool = False
    ) -> None:
        """
        Args:
            also_revoked: accept what a key signed that was revoked since.

        Raises:
            UntrustedModel.
        """
        trusted, revoked = self._followed()
        key = trusted.get(signature.key_id)
        if key is None and also_revoked:
            key = revoked.get(signature.key_id)
        if key is None:
            why = "was revoked" if signature.key_id in revoked else "is not trusted here"
            raise UntrustedModel(f"signed by key {signature.key_id}, which {why}")
        try:
            key.verify(base64.b64decode(signature.value, validate=True), canonical(document))
        except (InvalidSignature, ValueError) as error:
            raise UntrustedModel("the signature does not match the manifest") from error

    def _followed(self) -> tuple[dict[str, Ed25519PublicKey], dict[str, Ed25519PublicKey]]:
        """Trusted and revoked keys, as they are now."""
        if self._read[0] != self._keys.marks():
            self._read = self._read_now()
        return self._read[1]

    def _read_now(
        self,
    ) -> tuple[
        tuple[FileMark, ...], tuple[dict[str, Ed25519PublicKey], dict[str, Ed25519PublicKey]]
    ]:
        marks = self._keys.marks()
        revoked = self._keys.revoked()
        trusted = {one: key for one, key in self._keys.trusted().items() if one not in revoked}
        return marks, (trusted, revoked)
