"""A model from its folder onto the device, checked as far as it must be before drawing begins.

The rest is checked beside drawing (`worker/late_checks.py`). A model that failed there is checked
as a whole before it is drawn with again.
"""

from collections.abc import Sequence
from functools import partial

import structlog
import torch

from core.checked_stream import LeftToCheck
from core.errors import ModelUnsupported
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.registry import ModelRegistry
from diffusion.erasure_file import read_erasure
from diffusion.loading import Components, load_base
from diffusion.swapping import NOTHING
from worker.late_checks import LateCheck, LateChecks
from worker.refusing import RefusalRecord
from worker.room import Room
from worker.variant import Base, Variant

log = structlog.get_logger()


class ModelLoader:
    def __init__(
        self,
        registry: ModelRegistry,
        *,
        device: torch.device,
        dtype: torch.dtype,
        layout: torch.memory_format,
        refusals: RefusalRecord | None,
        room: Room | None,
        buckets: Sequence[int],
        most_rows: int,
    ) -> None:
        """The arguments are those of `worker.shelf.Shelf`."""
        self._registry = registry
        self._device = device
        self._dtype = dtype
        self._layout = layout
        self._room = room
        self._buckets = buckets
        self._most_rows = most_rows
        self._late_checks = LateChecks(refusals)

    @property
    def checked_bytes(self) -> int:
        """How much has been read beside drawing, to be checked."""
        return self._late_checks.bytes

    def base(self, manifest: Manifest) -> Base:
        """
        Raises:
            UntrustedModel, ModelUnsupported.
        """
        left = None if self._checks_first(manifest) else LeftToCheck()
        components = self._components(manifest, left)
        if left is None:
            self._late_checks.trust(manifest)
            late = LateCheck(), LateCheck()
        else:
            late = self._late_checks.begin_base(manifest, left)
        for part in (components.unet, components.vae):
            part.to(memory_format=self._layout)
        log.info("loaded", model=manifest.id)
        return Base(
            *(manifest, components, self._device, self._room, self._buckets, self._most_rows),
            *late,
        )

    def variant(self, manifest: Manifest, base: Base) -> Variant:
        """A model on its base: that itself, or what was erased of it.

        Raises:
            UntrustedModel, ModelUnsupported.
        """
        if manifest.edit is None:
            late_check = self._late_checks.begin(manifest, base.late_check, [])
            return Variant(manifest, base, base.denoiser, late_check=late_check)
        files = ModelFiles(self._registry.path(manifest.id), manifest)
        erasure = read_erasure(files, base.manifest, base.unet.shapes)
        unread = [partial(files.check, name) for name in files.unread]
        if self._late_checks.doubts(manifest):
            while unread:
                unread.pop()()
            self._late_checks.trust(manifest)
        if erasure.tensors:
            # They will be written over the base's, which are digested as they were read.
            base.digested.wait()
        delta = base.unet.prepared(erasure.tensors) if erasure.tensors else NOTHING
        log.info("loaded", model=manifest.id, base=base.manifest.id)
        return Variant(
            manifest,
            base,
            base.batch_of(delta) if erasure.tensors else base.denoiser,
            erasure.maps_on(self._device),
            delta,
            self._late_checks.begin(manifest, base.late_check, unread),
        )

    def _checks_first(self, manifest: Manifest) -> bool:
        """Whether all of a base is to be checked before it is drawn with."""
        if self._late_checks.doubts(manifest):
            return True
        if self._room is None or self._device.type != "cpu":
            return False
        folder, side_px = self._registry.path(manifest.id), manifest.drawing.native_px
        files = ModelFiles(folder, manifest)
        read_bytes = sum(files.size_bytes(name) for name in files.listed)
        drawing = self._room.footprint(manifest, folder, (side_px, side_px)).drawing(guided=True)
        # What was read is kept until it was checked, beside weights of another layout, and maybe
        # of a type twice as wide.
        return self._room.lacks(3 * read_bytes + drawing)

    def _components(self, manifest: Manifest, later: LeftToCheck | None) -> Components:
        """Raises UntrustedModel rather than that the parts do not fit, where both are true."""
        try:
            return load_base(
                self._registry.path(manifest.id),
                manifest,
                device=self._device,
                dtype=self._dtype,
                later=later,
            )
        except ModelUnsupported:
            for check in [] if later is None else [*later.read, *later.unread]:
                check()
            raise
