"""Ed25519 signatures over canonical JSON, and the keys on disk.

    keys/signing.pem           the private key, mode 0600; trainer and service sign with it
    keys/trusted/<id>.pem      public keys; a worker serves what one of them signed

A key's id is the first 16 hex digits of the SHA-256 of its raw public bytes.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict

from core.errors import Misconfigured, UntrustedModel
from core.files import write_atomically


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
    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = _key_id(key.public_key())

    @classmethod
    def load(cls, keys_dir: Path) -> "Signer":
        """Raises Misconfigured when there is no usable key."""
        path = keys_dir / "signing.pem"
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"no usable signing key at {path}; `trce up` makes one") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(f"{path} is not an Ed25519 key")
        return cls(key)

    @classmethod
    def load_or_create(cls, keys_dir: Path) -> "Signer":
        """The installation's key; on first use one is made, and trusted."""
        if (keys_dir / "signing.pem").exists():
            return cls.load(keys_dir)
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        # Trust first: a crash between the two leaves no key whose signatures nobody accepts.
        write_atomically(keys_dir / "trusted" / f"{_key_id(key.public_key())}.pem", public)
        write_atomically(keys_dir / "signing.pem", pem, mode=0o600)
        return cls(key)

    def sign(self, document: dict[str, Any]) -> Signature:
        value = base64.b64encode(self._key.sign(canonical(document))).decode()
        return Signature(key_id=self.key_id, value=value)


class Verifier:
    def __init__(self, trusted: dict[str, Ed25519PublicKey]) -> None:
        self._trusted = trusted

    @classmethod
    def load(cls, keys_dir: Path) -> "Verifier":
        """Raises Misconfigured when a trusted key cannot be read, or there is none."""
        trusted: dict[str, Ed25519PublicKey] = {}
        for path in sorted((keys_dir / "trusted").glob("*.pem")):
            try:
                key = load_pem_public_key(path.read_bytes())
            except (OSError, ValueError) as error:
                raise Misconfigured(f"{path} is not a public key in PEM form") from error
            if not isinstance(key, Ed25519PublicKey):
                raise Misconfigured(f"{path} is not an Ed25519 key")
            trusted[_key_id(key)] = key
        if not trusted:
            raise Misconfigured(f"no trusted public key below {keys_dir / 'trusted'}")
        return cls(trusted)

    def check(self, document: dict[str, Any], signature: Signature) -> None:
        """Raises UntrustedModel."""
        key = self._trusted.get(signature.key_id)
        if key is None:
            raise UntrustedModel(f"signed by key {signature.key_id}, which is not trusted here")
        try:
            key.verify(base64.b64decode(signature.value, validate=True), canonical(document))
        except (InvalidSignature, ValueError) as error:
            raise UntrustedModel("the signature does not match the manifest") from error


def _key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]
