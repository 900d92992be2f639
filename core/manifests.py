"""A model's manifest: what it is, how it was made, the digest of every file, signed.

The manifest is the truth about a model; nothing about one is stored anywhere else.
"""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from core.digests import Algorithm, digests
from core.edits import Edit
from core.errors import UntrustedModel
from core.files import open_plain, write_atomically
from core.model_folder import MANIFEST, REPORTS, file_names
from core.signing import Signature, Signer, Verifier, canonical
from core.specs import ModelId
from core.thresholds import PromoteIf

CHANGES = {"signature", "status", "serial", "reports", "overrides"}
"""What may change in the life of a model, and says nothing of what it is."""
MAX_MANIFEST_BYTES = 4 * 1024 * 1024


def _leads_nowhere_else(name: str) -> str:
    if not name or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r} is no path inside a model's folder")
    return name


FileName = Annotated[str, AfterValidator(_leads_nowhere_else)]
"""Relative to a folder, with slashes: whoever joins the two stays inside it."""


class ModelStatus(StrEnum):
    """candidate ──promote──▶ serving ──retire──▶ retired ──promote──▶ serving"""

    CANDIDATE = "candidate"
    SERVING = "serving"
    RETIRED = "retired"


class Drawing(BaseModel):
    """What the model can draw, known without loading it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    native_px: int
    """The side it was trained at, and the default."""
    multiple_px: int
    """Sides must be multiples of this: the VAE's factor times the UNet's."""
    max_px: int


class ReportEntry(BaseModel):
    """A report about the model, below `reports/<its id>/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created_at: float
    files: dict[FileName, str]
    """Name -> SHA-256."""


class Override(BaseModel):
    """An operator served the model although something was missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    actor: str
    reason: str
    missing: tuple[str, ...]


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    id: ModelId
    kind: Literal["base", "erased"]
    family: str
    status: ModelStatus
    serial: int = Field(default=0, ge=0, lt=2**53)
    """Of this version of the manifest: milliseconds since 1970, or one more than the last one's if
    that is more. So a model that is imported anew is newer without anybody being asked."""
    created_at: float
    code_version: str
    drawing: Drawing
    edit: Edit | None = None
    files: dict[FileName, str] = Field(min_length=1)
    """Path relative to the folder -> SHA-256, for every file but the manifest and the reports."""
    blake3: dict[FileName, str] | None = None
    """The same paths -> BLAKE3, which is checked where it is there; None: an earlier version's."""
    promote_if: PromoteIf | None = None
    """What a report must show before the model is served."""
    reports: dict[FileName, ReportEntry] = {}
    overrides: tuple[Override, ...] = ()
    """Every promotion without what was demanded, oldest first."""
    signature: Signature | None = None

    @model_validator(mode="after")
    def _digests_every_file_twice(self) -> Self:
        if self.blake3 is not None and self.blake3.keys() != self.files.keys():
            raise ValueError("blake3 must list the same files as files does")
        return self

    @property
    def erases(self) -> bool:
        """Something was erased: false for a base, and when the last concept was taken out."""
        return self.edit is not None and bool(self.edit.concepts)

    @property
    def report_files(self) -> dict[str, str]:
        """Path relative to the folder -> SHA-256, for the files of its reports."""
        return {
            f"{REPORTS}/{report}/{name}": digest
            for report, entry in self.reports.items()
            for name, digest in entry.files.items()
        }

    @property
    def content_digest(self) -> str:
        """One digest for all files, whatever the status: names the weights."""
        lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def checked_by(self) -> tuple[Algorithm, dict[str, str]]:
        """What files are held against: an algorithm, and path -> digest."""
        if self.blake3 is None:
            return Algorithm.SHA256, self.files
        return Algorithm.BLAKE3, self.blake3

    @property
    def certificate(self) -> str:
        """Names what the signed manifest attests, whatever the status and whoever signed it."""
        attested = self.model_dump(mode="json", exclude_unset=True, exclude=CHANGES)
        return hashlib.sha256(canonical(attested)).hexdigest()[:16]

    def explicit(self) -> "Manifest":
        """With every default said, so that none of a later version changes what it means."""
        return Manifest.model_validate(self.model_dump())

    @property
    def signed_by(self) -> str | None:
        """The id of the key that it says signed it; whether that is so is another question."""
        return self.signature.key_id if self.signature else None

    def signed(self, signer: Signer) -> "Manifest":
        return self.model_copy(update={"signature": signer.sign(self._document())})

    def check_signature(self, verifier: Verifier) -> None:
        """Raises UntrustedModel."""
        if self.signature is None:
            raise UntrustedModel(f"model {self.id} is not signed")
        try:
            verifier.check(self._document(), self.signature)
        except UntrustedModel as error:
            raise UntrustedModel(f"model {self.id}: {error}") from error

    def check_files(self, folder: Path) -> None:
        """Every listed file is there, unchanged; nothing else is.

        Raises:
            UntrustedModel: names the first file that is not as the manifest says.
        """
        self.check_names(file_names(folder))
        algorithm, expected = self.checked_by
        for name, digest in sorted(expected.items()):
            try:
                (found,) = digests(folder / name, algorithm)
            except OSError as error:
                raise UntrustedModel(
                    f"model {self.id}: {name} cannot be read: {error.strerror}"
                ) from error
            if found != digest:
                raise UntrustedModel(f"model {self.id}: {name} differs from its manifest")

    def check_names(self, present: set[str]) -> None:
        """Raises UntrustedModel: names a file that is not listed, or one that is not there."""
        if extra := sorted(present - set(self.files)):
            raise UntrustedModel(f"model {self.id}: {extra[0]} is not listed in its manifest")
        if absent := sorted(set(self.files) - present):
            raise UntrustedModel(f"model {self.id}: {absent[0]} is missing")

    def write(self, folder: Path, *, scratch: Path | None = None) -> None:
        """
        Args:
            scratch: where the file is while it is written, see `write_atomically`.
        """
        write_atomically(folder / MANIFEST, self.file_bytes(), scratch=scratch)

    def file_bytes(self) -> bytes:
        return (self.model_dump_json(indent=2, exclude_unset=True) + "\n").encode()

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Parse only; trust needs `check_signature` and `check_files`.

        Raises:
            UntrustedModel: unreadable, too large, or not a manifest; or the folder is elsewhere.
            FileNotFoundError
        """
        return cls.parse(cls.read_bytes(folder), folder.name)

    @classmethod
    def read_bytes(cls, folder: Path) -> bytes:
        """What is in the file of a model's manifest, and a byte more where it is too large.

        Raises:
            UntrustedModel: unreadable, or the folder is elsewhere.
            FileNotFoundError
        """
        # Whoever may change where a link points to changes the model under everybody's eyes.
        if folder.is_symlink():
            raise UntrustedModel(f"{folder.name} is a symbolic link; put the folder itself there")
        try:
            with open_plain(folder / MANIFEST) as file:
                return bytes(file.read(MAX_MANIFEST_BYTES + 1))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise UntrustedModel(
                f"{folder.name}: its manifest cannot be read: {error.strerror}"
            ) from error

    @classmethod
    def parse(cls, data: bytes, name: str) -> "Manifest":
        """What a manifest's file says; `name` is its model's, for messages.

        Raises:
            UntrustedModel: too large, or not a manifest.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise UntrustedModel(f"{name}: its manifest is over {MAX_MANIFEST_BYTES} bytes")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the start"
            raise UntrustedModel(
                f"{name}: its manifest is malformed at {place}: {first['msg']}"
            ) from error

    def _document(self) -> dict[str, Any]:
        # As it was written: a field that came with a later version is not in what was signed.
        return self.model_dump(mode="json", exclude_unset=True, exclude={"signature"})
