"""The models a worker has loaded, each verified before anything that was drawn with it leaves.

Variants that differ from their base by a text map only share its weights, and so share batches:
their prompts are mapped, nothing else changes. The tensors of a variant with changed weights
wait in host memory, and are copied over the base's when its turn comes.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import structlog
import torch

from core.errors import DeviceOutOfMemory, UntrustedModel
from core.manifests import Manifest
from core.registry import ModelRegistry
from core.specs import GenerationSpec
from diffusion.erasure_file import changed_counts
from diffusion.freed_memory import return_to_system
from worker import metrics
from worker.fetching import Fetches
from worker.late_checks import ModelKey, key_of
from worker.model_loader import ModelLoader
from worker.refusing import RefusalRecord, telling_refusals
from worker.room import Room
from worker.variant import Base, Variant
from worker.vetting import vet_base, vet_erased

log = structlog.get_logger()

MAX_BASES = 2
MAX_VARIANTS = 32


class Shelf:
    def __init__(
        self,
        registry: ModelRegistry,
        *,
        device: torch.device,
        dtype: torch.dtype,
        layout: torch.memory_format = torch.contiguous_format,
        delta_cache_bytes: int = 2 * 2**30,
        refusals: RefusalRecord | None = None,
        room: Room | None = None,
        buckets: Sequence[int] = (),
        most_rows: int = 32,
    ) -> None:
        """
        Args:
            layout: of the weights of UNets and VAEs.
            refusals: where it is told which models were refused, and which are served.
            delta_cache_bytes: of changed weights that wait in host memory; one variant is always
                kept.
            room: says what fits; None: everything may be tried.
            buckets: rows of compiled passes; none: nothing is compiled.
            most_rows: of one UNet pass, whatever would fit; a guided picture takes two.
        """
        self._delta_cache_bytes = delta_cache_bytes
        self._refusals = refusals
        self._room = room
        self._registry = registry
        self._fetches = Fetches(registry)
        self._device = device
        self._dtype = dtype
        self._loader = ModelLoader(
            registry,
            device=device,
            dtype=dtype,
            layout=layout,
            refusals=refusals,
            room=room,
            buckets=buckets,
            most_rows=most_rows,
        )
        self._bases: OrderedDict[str, Base] = OrderedDict()
        self._variants: OrderedDict[ModelKey, Variant] = OrderedDict()
        self._holding = False
        self._held: set[str] = set()
        """Digests of the bases of those who have not begun to draw yet."""

    @property
    def models(self) -> list[str]:
        """The ids of what is loaded, in the order of their letters."""
        loaded = self._variants.values()
        return sorted(one.model_id for one in loaded if not one.late_check.refused)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """What is asked for meanwhile gives way to nothing, as if it were drawn with already."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self._held.clear()

    def variant(self, model_id: str, spec: GenerationSpec | None = None) -> Variant:
        """A served model, loaded if it is not; its status, and its base, are looked up every time.

        Some of its files may not be checked yet: nothing that is drawn with it may be let out
        before its `late_check.wait()`.

        Args:
            spec: of pictures that there must be room for, one at a time at least.

        Raises:
            ModelNotFound, ModelNotServed, UntrustedModel, ModelUnsupported.
            ModelTooLarge, SizeNotDrawable: nothing was loaded or forgotten then.
            DeviceOutOfMemory: it does not fit beside what is being drawn with now.
        """
        with telling_refusals(model_id, self._refusals):
            variant = self._variant(model_id, spec)
        if self._refusals and variant.late_check.passed:
            self._refusals.served(model_id)
        return variant

    def check_again(self, variant: Variant) -> None:
        """Hold what is in memory against its manifest, and that of its base, as they are now.

        No tensor is read, nor is a signature checked twice with the same keys: it takes well under
        a millisecond.

        Raises:
            ModelNotFound, ModelNotServed.
            UntrustedModel: also if another model has its name by now.
        """
        with telling_refusals(variant.model_id, self._refusals):
            manifest = self._registry.get(variant.model_id)
            if manifest.content_digest != variant.digest:
                raise UntrustedModel(
                    f"model {manifest.id}: its manifest lists other files than those it was "
                    "loaded from"
                )
            base = self._base_manifest(manifest)
            if base.content_digest != variant.base.manifest.content_digest:
                raise UntrustedModel(
                    f"model {manifest.id} says now that it was made from another {base.id} than "
                    "the one it is drawn with"
                )
            self._registry.serving.check(manifest)

    def wait_for(self, model_id: str) -> str | None:
        """Why a model has to be waited for; None: this host has it. Others may be drawn with.

        Raises:
            AppError: what speaks against the model.
        """
        with telling_refusals(model_id, self._refusals):
            return self._fetches.wait_for(model_id)

    @property
    def checked_bytes(self) -> int:
        """How much has been read beside drawing, to be checked."""
        return self._loader.checked_bytes

    @property
    def awaited(self) -> list[str]:
        """Models that `wait_for` would name a reason for."""
        return self._fetches.awaited

    def _variant(self, model_id: str, spec: GenerationSpec | None) -> Variant:
        manifest = self._registry.served(model_id)
        base = self._base_manifest(manifest)
        key = key_of(manifest)
        self._forget_refused(manifest, base)
        if self._room is not None and spec is not None:
            self._make_room(manifest, base, spec, self._room)
        if key not in self._variants:
            with metrics.SWAP.labels("full" if manifest.edit is None else "delta").time():
                self._variants[key] = self._loader.variant(manifest, self._base(base))
            self._forget_least_used()
        self._variants.move_to_end(key)
        variant = self._variants[key]
        if self._holding:
            self._held.add(variant.base.manifest.content_digest)
        self._bases.move_to_end(variant.base.manifest.content_digest)
        self._forget_spare_bases()
        return variant

    def warm_up(self, model_id: str) -> None:
        """Load a model, compile what is to be compiled, and draw with it once.

        Raises:
            AppError: as `variant` does, or whatever else hinders drawing.
        """
        side_px = self._base_manifest(self._registry.served(model_id)).drawing.native_px
        native = GenerationSpec(prompt="warm-up", model=model_id, width=side_px, height=side_px)
        variant = self.variant(model_id, native)
        variant.late_check.wait()
        variant.base.warm_up()

    def _base(self, manifest: Manifest) -> Base:
        digest = manifest.content_digest
        if digest not in self._bases:
            self._bases[digest] = self._loader.base(manifest)
        return self._bases[digest]

    def _base_manifest(self, manifest: Manifest) -> Manifest:
        """Of the model that it was made from, or its own. Raises ModelNotFound, UntrustedModel."""
        if manifest.edit is None:
            return manifest
        base = self._registry.get(manifest.edit.base_model)
        if base.content_digest != manifest.edit.base_digest:
            raise UntrustedModel(
                f"model {manifest.id} was made from another {base.id} than the one here"
            )
        return base

    def _make_room(
        self, manifest: Manifest, base: Manifest, spec: GenerationSpec, room: Room
    ) -> None:
        """Forget bases that nobody asked for lately, as far as one picture of `spec` needs it.

        Those that pictures are being drawn with stay: forgetting them would free nothing. Nothing
        gives way to what could not be loaded, or would not fit all the same.
        """
        assert spec.width is not None  # admission fills these in
        assert spec.height is not None
        size_px, digest = (spec.width, spec.height), base.content_digest
        # Names: whoever holds a base keeps its weights on the device.
        others = [name for name in self._bases if name != digest]
        wanted_bytes = room.check(
            base.id,
            room.footprint(base, self._registry.path(base.id), size_px),
            size_px,
            guided=spec.guidance_scale > 1,
            loaded=digest in self._bases,
            swapped_bytes=self._to_keep_bytes(manifest, digest),
            evictable_bytes=sum(self._bases[name].size_bytes for name in others),
        )
        if not room.lacks(wanted_bytes):
            return
        idle = self._idle(others)
        idle_bytes = sum(self._bases[name].size_bytes for name in idle)
        if len(idle) == len(others) or not room.lacks(wanted_bytes, evictable_bytes=idle_bytes):
            if idle:
                # It is read twice then; seconds, where another model would be loaded in vain.
                self._vet(manifest, base)
            for name in idle:
                self._forget(name)
                if not room.lacks(wanted_bytes):
                    return
        if len(idle) < len(others):
            # Not for ever: it is tried again when nothing else is drawn.
            raise DeviceOutOfMemory(
                f"model {base.id} does not fit beside the models that are being drawn with"
            )

    def _to_keep_bytes(self, manifest: Manifest, base_digest: str) -> int:
        """What the base's own of the tensors that a model changes take, once they are swapped."""
        if manifest.edit is None:
            return 0
        if (variant := self._variants.get(key_of(manifest))) is not None:
            counts = {name: one.numel() for name, one in variant.delta.tensors.items()}
        else:
            counts = changed_counts(self._registry.path(manifest.id))
        base = self._bases.get(base_digest)
        if base is not None:
            return base.unet.to_keep_bytes(counts)
        return sum(counts.values()) * self._dtype.itemsize

    def _vet(self, manifest: Manifest, base: Manifest) -> None:
        """Look through what was not yet. Raises UntrustedModel, ModelUnsupported."""
        folder = self._registry.path(base.id)
        if base.content_digest in self._bases:
            self._bases[base.content_digest].late_check.wait()
        else:
            vet_base(folder, base)
        if manifest.edit is not None and key_of(manifest) not in self._variants:
            vet_erased(self._registry.path(manifest.id), manifest, folder, base)

    def _idle(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._held and not self._bases[name].in_use]

    def _forget_spare_bases(self) -> None:
        *earlier, last = self._bases
        spare = self._idle(earlier)[: max(0, len(self._bases) - MAX_BASES)]
        # Nothing gives way to what may yet be refused; whoever draws next looks again.
        if self._bases[last].late_check.passed:
            for name in spare:
                self._forget(name)

    def _forget_refused(self, manifest: Manifest, base: Manifest) -> None:
        """Of a model and its base, what was found not to be as it was signed."""
        loaded = self._bases.get(base.content_digest)
        if loaded is not None and loaded.late_check.refused:
            if loaded.in_use:
                # It keeps its memory until those who draw with it were ended: that is next.
                loaded.late_check.wait()
            self._forget(base.content_digest)
        key = key_of(manifest)
        if key in self._variants and self._variants[key].late_check.refused:
            del self._variants[key]

    def _forget(self, base_digest: str) -> None:
        """Forget a base, with its variants, and give its memory back."""
        forgotten = self._bases.pop(base_digest)
        # A variant would keep the base in memory that it stands on.
        for name in [name for name, one in self._variants.items() if one.base is forgotten]:
            del self._variants[name]
        del forgotten
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            return_to_system()

    def _forget_least_used(self) -> None:
        def held_bytes() -> int:
            return sum(one.delta.size_bytes for one in self._variants.values())

        while len(self._variants) > 1 and (
            len(self._variants) > MAX_VARIANTS or held_bytes() > self._delta_cache_bytes
        ):
            self._variants.popitem(last=False)
