"""What fits onto a worker's device: asked before anything is loaded, evicted or begun."""

import contextlib
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from core.errors import AppError, ModelTooLarge, ModelUnsupported, SizeNotDrawable
from core.files import write_atomically
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.version import CODE_VERSION
from diffusion.footprint import FORMULA, Footprint, measure
from diffusion.profiling import knee, timed_further

MIB = 1 << 20
USABLE = 0.9
"""The rest is for what is not counted: workspaces of convolutions, the allocator's gaps."""


class Known(BaseModel):
    footprint: Footprint
    rows: int | None = None
    """Of one UNet pass, where more have proved too many."""
    pass_s: dict[int, float] = {}
    """Rows of a UNet pass -> seconds that it took."""


class Room:
    """Remembers on disk what it has found, for each model, size, device, dtype and version."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        free_bytes: Callable[[], int | None],
        cache: Path,
        *,
        settings: str = "",
    ) -> None:
        """
        Args:
            settings: whatever else decides how long a pass takes.
            free_bytes: of the device now; None where nobody can say, and everything may be tried.
        """
        self._dtype = dtype
        self._device_type = device.type
        self._free_bytes = free_bytes
        self._cache = cache
        self._known: dict[Path, Known] = {}
        self._decoding_per_px: dict[str, float] = {}
        """Digest of a base -> bytes."""
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
        else:
            kind, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
            name = f"{device.type} {kind} x {threads} of {os.cpu_count()}"
        self._conditions = f"{name} {dtype} {CODE_VERSION} {FORMULA} {settings}"

    def footprint(self, base: Manifest, folder: Path, size_px: tuple[int, int]) -> Footprint:
        """Of a base model; what is kept of it was computed from configs as they were signed.

        Raises:
            UntrustedModel, ModelUnsupported.
        """
        place = self._place(base.content_digest, size_px)
        if (known := self._read(place)) is None:
            width, height = size_px
            files = ModelFiles(folder, base)
            try:
                found = measure(
                    files,
                    dtype=self._dtype,
                    width_px=width,
                    height_px=height,
                    remembering=True,
                )
            except AppError:
                raise
            except Exception as error:
                raise ModelUnsupported(
                    f"{base.id}: nothing can be computed from its configs: {error}"
                ) from error
            self._write(place, known := Known(footprint=found))
        per_px = known.footprint.decoding / math.prod(size_px)
        self._decoding_per_px[base.content_digest] = per_px
        return known.footprint

    def rows(self, digest: str, size_px: tuple[int, int]) -> int | None:
        """How many fit into one UNet pass; None: nobody knows."""
        known, fit = self._read(self._place(digest, size_px)), self.fitting(digest, size_px)
        proved = None if known is None else known.rows
        return min((rows for rows in (fit, proved) if rows is not None), default=None)

    def fitting(self, digest: str, size_px: tuple[int, int]) -> int | None:
        """How many should fit, whatever has proved too many; None: nobody knows."""
        known, free = self._read(self._place(digest, size_px)), self._free_bytes()
        if known is None or free is None:
            return None
        return max(1, int(USABLE * free) // known.footprint.row)

    def decodable(self, digest: str, size_px: tuple[int, int]) -> int | None:
        """How many pictures may be decoded at once now; None: nobody knows.

        What a VAE takes grows with the pixels alone. So any size tells of all, of previews' too.
        """
        per_px, free = self._decoding_per_px.get(digest), self._free_bytes()
        if per_px is None or free is None:
            return None
        return max(1, int(USABLE * free / (per_px * math.prod(size_px))))

    def lower(self, digest: str, size_px: tuple[int, int], rows: int) -> None:
        """More than `rows` did not fit."""
        place = self._place(digest, size_px)
        if (known := self._read(place)) is not None:
            self._write(place, known.model_copy(update={"rows": rows}))

    def fitted(self, digest: str, size_px: tuple[int, int], rows: int) -> None:
        """So many did, though they had proved too many before."""
        place = self._place(digest, size_px)
        if (known := self._read(place)) is not None and known.rows and known.rows < rows:
            self._write(place, known.model_copy(update={"rows": rows}))

    def worthwhile(
        self,
        digest: str,
        size_px: tuple[int, int],
        waiting: int,
        rehearse: Callable[[int], Callable[[], Tensor]],
    ) -> int | None:
        """Beyond how many rows, of so many that wait, a pass gains nothing; timed if need be.

        Args:
            rehearse: makes a pass of so many rows.
        """
        place = self._place(digest, size_px)
        if (known := self._read(place)) is None:
            return None
        pass_s = timed_further(known.pass_s, waiting, rehearse, self._device_type)
        if pass_s != known.pass_s:
            self._write(place, known.model_copy(update={"pass_s": pass_s}))
        return knee(pass_s, self._device_type)

    def lacks(self, wanted_bytes: int, *, evictable_bytes: int = 0) -> bool:
        """There is less than that free, even if so much were besides."""
        free = self._free_bytes()
        return free is not None and wanted_bytes > USABLE * (free + evictable_bytes)

    def check(
        self,
        model_id: str,
        footprint: Footprint,
        size_px: tuple[int, int],
        *,
        guided: bool,
        loaded: bool,
        swapped_bytes: int = 0,
        evictable_bytes: int,
    ) -> int:
        """The bytes that must be free before one picture is drawn.

        Args:
            loaded: the model's weights are on the device.
            swapped_bytes: what copies of weights take that will be swapped.
            evictable_bytes: what the device would have free besides, at best.

        Raises:
            ModelTooLarge, SizeNotDrawable.
        """
        weights = swapped_bytes + (0 if loaded else footprint.weights)
        drawing = footprint.drawing(guided=guided)
        free = self._free_bytes()
        if free is None:
            return weights + drawing
        most = int(USABLE * (free + evictable_bytes))
        if weights > most:
            raise ModelTooLarge(
                f"model {model_id} takes {weights // MIB} MiB as {self._dtype}, and the device "
                f"has {most // MIB} MiB for it; use a larger device, or half precision"
            )
        if weights + drawing > most:
            width, height = size_px
            raise SizeNotDrawable(
                f"{width} x {height}: to draw it takes {drawing // MIB} MiB besides the model, "
                f"and the device has {max(0, most - weights) // MIB} MiB; ask for a smaller one"
            )
        return weights + drawing

    def _place(self, digest: str, size_px: tuple[int, int]) -> Path:
        key = f"{digest} {self._conditions} {size_px[0]}x{size_px[1]}"
        return self._cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _read(self, place: Path) -> Known | None:
        if place not in self._known:
            try:
                self._known[place] = Known.model_validate_json(place.read_text())
            except (OSError, ValidationError):
                return None  # it is measured again
        return self._known[place]

    def _write(self, place: Path, known: Known) -> None:
        self._known[place] = known
        with contextlib.suppress(OSError):  # a full disk costs measuring again, and no more
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, known.model_dump_json().encode())
