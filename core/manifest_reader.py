"""Reads the manifests of one registry again and again, and does what depends on bytes alone once.

The file is read at every look. While its bytes are those of an earlier look, they need not be
parsed again; while the keys are those of that look, too, nor need the signature be checked. So
nothing is believed longer than without, and a look at many models costs little.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from core.file_marks import FileMark
from core.manifests import Manifest
from core.signing import Verifier

MAX_REMEMBERED = 256


@dataclass(frozen=True)
class _Known:
    manifest: Manifest
    checked_with: tuple[FileMark, ...] | None = None
    """The keys that its signature was checked with; None: it was not."""


class ManifestReader:
    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def read(self, folder: Path, *, trusted: bool) -> Manifest:
        """
        Args:
            trusted: only if a key that is trusted now signed it.

        Raises:
            UntrustedModel: unreadable, too large, or not a manifest; or not signed as it must be.
            FileNotFoundError
        """
        data = Manifest.read_bytes(folder)
        digest = hashlib.sha256(data).digest()
        known = self._known.get(digest) or _Known(Manifest.parse(data, folder.name))
        if trusted:
            # The marks first: if a key changes in between, the signature is checked once more.
            keys = self._verifier.marks()
            if known.checked_with != keys:
                known.manifest.check_signature(self._verifier)
                known = _Known(known.manifest, keys)
        self._remember(digest, known)
        return known.manifest

    def _remember(self, digest: bytes, known: _Known) -> None:
        # Threads of the service share this: each step stands by itself.
        self._known[digest] = known
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
