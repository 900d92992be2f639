"""What a picture says about where it comes from, signed: which model drew it, and which pixels.

The record names a model by the digest of its files, and the picture by a digest of its pixels, so
it can neither be moved to another picture nor survive a change of this one. It is signed with
the installation's key for pictures, which signs nothing else.
"""

import base64
import binascii
import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from core.errors import UntrustedModel
from core.signing import Signature, Signer, Verifier
from core.specs import ModelId

MAX_RECORD_CHARS = 8000
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Provenance(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    kind: Literal["picture"] = "picture"
    generation: str
    """The id of the job."""
    index: int
    model: ModelId
    model_digest: Sha256
    """`Manifest.content_digest`: the weights."""
    certificate: str
    """`Manifest.certificate`: how the model was made, as its signed manifest says."""
    base_model: ModelId | None
    """What the model was erased from; null for a base model."""
    base_digest: Sha256 | None
    seed: int
    made_at: int
    """Unix time in whole seconds."""
    pixels: Sha256
    """`pixel_digest` of the picture as every reader decodes it."""
    parameters: Sha256
    """SHA-256 of the text that goes with the picture in the form of A1111, in UTF-8."""
    signature: Signature | None = None

    def signed(self, signer: Signer) -> "Provenance":
        return self.model_copy(update={"signature": signer.sign(self._document())})

    def is_signed_by_one_of(self, verifier: Verifier) -> bool:
        if self.signature is None:
            return False
        try:
            verifier.check(self._document(), self.signature)
        except UntrustedModel:
            return False
        return True

    def encoded(self) -> str:
        """ASCII without anything that XML or a text chunk would have to escape."""
        return base64.b64encode(self.model_dump_json().encode()).decode()

    @classmethod
    def decoded(cls, text: str) -> "Provenance | None":
        """None for what is no record: anybody may have written it."""
        if len(text) > MAX_RECORD_CHARS:
            return None
        try:
            return cls.model_validate_json(base64.b64decode(text, validate=True))
        except (binascii.Error, ValidationError, ValueError):
            return None

    def _document(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"signature"})


def pixel_digest(width: int, height: int, rgb: bytes) -> str:
    """SHA-256 over the size and the 8 bit RGB values, row by row."""
    assert len(rgb) == 3 * width * height
    digest = hashlib.sha256(f"RGB {width}x{height}\n".encode())
    digest.update(rgb)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
