"""Content Credentials (C2PA 2): a claim in the picture's file that other people's tools read.

Beside the installation's own record (`core.provenance`), which needs no certificate authority,
this names the model under a certificate that the world may trust. Optional: the extra `c2pa`.
"""

import io
import json
import threading
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from PIL import Image

from core.errors import ContentCredentialsFailed, Misconfigured
from core.picture_files import DRAWN_BY_A_MODEL, MEDIA_TYPE, Format
from core.provenance import Provenance
from core.version import CODE_VERSION

MODEL_LABEL = "org.trce.model"
ALGORITHM_OF_CURVE = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}


class ContentCredentials:
    def __init__(self, certificates: bytes, key: bytes) -> None:
        """
        Args:
            certificates: PEM; the signing certificate first, then those that vouch for it.
            key: PEM, PKCS 8, unencrypted.

        Raises:
            Misconfigured: no c2pa-python, or a key or certificates it cannot sign with.
        """
        try:
            import c2pa  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise Misconfigured(
                "content credentials need the extra `c2pa`: pip install 'trce-service[c2pa]'"
            ) from error
        self._c2pa = c2pa
        self._one_at_a_time = threading.Lock()
        try:
            info = c2pa.C2paSignerInfo(_algorithm(key), certificates, key, None)
            self._signer = c2pa.Signer.from_info(info)
            settings = c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}})
            self._context = c2pa.Context(settings)
            self._sign(_smallest_png(), "png", {})
        except (c2pa.C2paError, ValueError) as error:
            raise Misconfigured(
                f"content credentials cannot be signed with these certificates and key: {error}"
            ) from error

    @classmethod
    def load(cls, certificates: Path | None, key: Path | None) -> Self | None:
        """None where neither is set.

        Raises:
            Misconfigured.
        """
        if certificates is None and key is None:
            return None
        if certificates is None or key is None:
            raise Misconfigured(
                "set both TRCE_C2PA_CERTIFICATES and TRCE_C2PA_KEY, or neither of them"
            )
        try:
            return cls(certificates.read_bytes(), key.read_bytes())
        except OSError as error:
            raise Misconfigured(f"content credentials: {error}") from error

    def sign(self, data: bytes, image_format: Format, provenance: Provenance) -> bytes:
        """The file with a claim in it; its pixels and all else stay.

        Raises:
            ContentCredentialsFailed: the certificate has expired meanwhile, for one.
        """
        model = provenance.model_dump(
            mode="json",
            include={"model", "model_digest", "certificate", "base_model", "base_digest", "seed"},
            exclude_none=True,
        )
        try:
            return self._sign(data, image_format, model)
        except self._c2pa.C2paError as error:
            raise ContentCredentialsFailed(
                "withheld, since its content credentials could not be signed"
            ) from error

    def _sign(self, data: bytes, image_format: Format, model: dict[str, Any]) -> bytes:
        created = {
            "action": "c2pa.created",
            "digitalSourceType": DRAWN_BY_A_MODEL,
            "softwareAgent": {"name": "TRCE service", "version": CODE_VERSION},
        }
        claim = {
            "claim_generator_info": [{"name": "TRCE service", "version": CODE_VERSION}],
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [created]}},
                {"label": MODEL_LABEL, "data": model},
            ],
        }
        signed = io.BytesIO()
        with self._one_at_a_time:
            builder = self._c2pa.Builder(json.dumps(claim), context=self._context)
            builder.sign(self._signer, MEDIA_TYPE[image_format], io.BytesIO(data), signed)
        return signed.getvalue()


def _algorithm(pem: bytes) -> bytes:
    """Its name in C2PA. Raises ValueError."""
    key = load_pem_private_key(pem, password=None)
    match key:
        case ed25519.Ed25519PrivateKey():
            return b"ed25519"
        case rsa.RSAPrivateKey():
            return b"ps256"
        case ec.EllipticCurvePrivateKey() if key.curve.name in ALGORITHM_OF_CURVE:
            return ALGORITHM_OF_CURVE[key.curve.name]
    raise ValueError("C2PA knows Ed25519, RSA, and the curves P-256, P-384 and P-521")


def _smallest_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()
