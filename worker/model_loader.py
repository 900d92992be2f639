"""A model from its folder onto the device, checked as far as it must be before drawing begins.

The rest is checked beside drawing (`worker/late_checks.py`). A model that failed there is checked
as a whole before it is drawn with again.
"""

from collections.abc import Sequence
from functools import partial

import structlog
import torch

from core.errors import ModelUnsupported
from core.manifests import Manifest
from core.model_files import Check, ModelFiles
from core.registry import ModelRegistry
from diffusion.erasure import FILENAME
from diffusion.erasure_file import read_erasure
from diffusion.loading import Components, load_base
from worker.late_checks import LateChecks
from worker.refusing import RefusalRecord
from worker.room import Room
from worker.variant import Base, Variant

log = structlog.get_logger()

ModelKey = tuple[str, str]
"""A model's id, and the digest of its files: the same files under two names are two models, each
with a status and a certificate of its own."""


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
        self._doubted: set[ModelKey] = set()
        """Models whose late check failed: nothing of them is left for later any more."""

    def doubt(self, manifest: Manifest) -> None:
        """Check all of a model before it is drawn with, when it is loaded next."""
        self._doubted.add(key_of(manifest))

    def base(self, manifest: Manifest) -> Base:
        """
        Raises:
            UntrustedModel, ModelUnsupported.
        """
        later = self._later(manifest)
        components = self._components(manifest, later)
        for part in (components.unet, components.vae):
            part.to(memory_format=self._layout)
        self._doubted.discard(key_of(manifest))
        log.info("loaded", model=manifest.id)
        return Base(
            *(manifest, components, self._device, self._room, self._buckets, self._most_rows),
            late_check=self._late_checks.begin(later) if later else None,
        )

    def variant(self, manifest: Manifest, base: Base) -> Variant:
        """A model on its base: that itself, or what was erased of it.

        Raises:
            UntrustedModel, ModelUnsupported.
        """
        if manifest.edit is None:
            late_check = self._late_checks.begin_for(manifest.id, base.late_check, [])
            return Variant(manifest, base, base.denoiser, late_check=late_check)
        files, key = ModelFiles(self._registry.path(manifest.id), manifest), key_of(manifest)
        unread = [partial(files.check, name) for name in sorted(files.listed - {FILENAME})]
        if key in self._doubted:
            for check in unread:
                check()
            unread = []
            self._doubted.discard(key)
        erasure = read_erasure(files, base.manifest, base.unet.shapes)
        late_check = self._late_checks.begin_for(manifest.id, base.late_check, unread)
        log.info("loaded", model=manifest.id, base=base.manifest.id)
        maps = erasure.maps_on(self._device)
        if not erasure.tensors:
            return Variant(manifest, base, base.denoiser, maps, late_check=late_check)
        # Its tensors will be written over the base's, which are digested as they were read.
        base.late_check.wait()
        delta = base.unet.prepared(erasure.tensors)
        return Variant(manifest, base, base.batch_of(delta), maps, delta, late_check)

    def _later(self, manifest: Manifest) -> list[Check] | None:
        """Where to put what need not be checked of a base before drawing; None: all of it must."""
        if key_of(manifest) in self._doubted:
            return None
        files = ModelFiles(self._registry.path(manifest.id), manifest)
        read_bytes = sum(files.size_bytes(name) for name in files.listed)
        # What was read is kept until it was checked, beside weights of another layout, and maybe
        # of a type twice as wide.
        if self._room is not None and self._room.lacks(3 * read_bytes):
            return None
        return []

    def _components(self, manifest: Manifest, later: list[Check] | None) -> Components:
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
            for check in later or []:
                check()
            raise


def key_of(manifest: Manifest) -> ModelKey:
    return manifest.id, manifest.content_digest
