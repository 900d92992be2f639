"""The models a worker has loaded, each verified before a single tensor of it was read.

Variants that differ from their base by a text map only share its weights, and so share batches:
their prompts are mapped, nothing else changes. A variant with changed weights gets a UNet of its
own.
"""

import copy
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import structlog
import torch

from core.errors import UntrustedModel
from core.manifests import Manifest
from core.registry import ModelRegistry
from diffusion.denoiser import Denoiser
from diffusion.erasure import FILENAME, Erasure, write_tensors
from diffusion.loading import Components, load_base
from diffusion.prompts import EncodedPrompt, PromptEncoder
from worker import metrics

log = structlog.get_logger()

MAX_BASES = 2
MAX_VARIANTS = 32
MAX_OWN_UNETS = 2
"""Variants with changed weights, each of which holds a whole UNet."""


@dataclass(frozen=True)
class Base:
    components: Components
    encoder: PromptEncoder
    denoiser: Denoiser


@dataclass(frozen=True)
class Variant:
    """A model ready to draw: whose weights, through which map of the text."""

    manifest: Manifest
    encoder: PromptEncoder
    denoiser: Denoiser
    erasure: Erasure | None

    @property
    def model_id(self) -> str:
        return self.manifest.id

    @property
    def digest(self) -> str:
        return self.manifest.content_digest

    def embed(self, prompt: str) -> EncodedPrompt:
        """The prompt as this model sees it."""
        encoded = self.encoder.encode(prompt)
        return encoded if self.erasure is None else self.erasure.map_prompt(encoded)


class Shelf:
    def __init__(
        self, registry: ModelRegistry, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._registry = registry
        self._device = device
        self._dtype = dtype
        self._bases: OrderedDict[str, Base] = OrderedDict()
        self._variants: OrderedDict[str, Variant] = OrderedDict()

    def variant(self, model_id: str) -> Variant:
        """A served model, loaded if it is not; its status is looked up every time.

        Raises:
            ModelNotFound, ModelNotServed, UntrustedModel, ModelUnsupported.
        """
        manifest = self._registry.served(model_id)
        digest = manifest.content_digest
        if digest not in self._variants:
            with metrics.SWAP.labels("full" if manifest.edit is None else "delta").time():
                self._variants[digest] = self._load(manifest)
            self._forget_least_used()
        self._variants.move_to_end(digest)
        return self._variants[digest]

    def _forget_least_used(self) -> None:
        own = [name for name, one in self._variants.items() if one.erasure and one.erasure.tensors]
        for name in own[:-MAX_OWN_UNETS]:
            del self._variants[name]
        while len(self._variants) > MAX_VARIANTS:
            self._variants.popitem(last=False)

    def _load(self, manifest: Manifest) -> Variant:
        if manifest.edit is None:
            base = self._base(manifest)
            return Variant(manifest, base.encoder, base.denoiser, None)
        base_manifest = self._registry.get(manifest.edit.base_model)
        if base_manifest.content_digest != manifest.edit.base_digest:
            raise UntrustedModel(
                f"model {manifest.id} was made from another {base_manifest.id} than the one here"
            )
        base = self._base(base_manifest)
        folder = self._registry.path(manifest.id)
        manifest.check_files(folder)
        # Read once, checked and then used: the file may change after it was checked.
        data = (folder / FILENAME).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.files.get(FILENAME):
            raise UntrustedModel(f"model {manifest.id}: {FILENAME} differs from its manifest")
        erasure = Erasure.parse(data)
        denoiser = base.denoiser
        if erasure.tensors:
            unet = copy.deepcopy(base.components.unet)
            write_tensors(unet, erasure.tensors)
            denoiser = Denoiser(
                unet,
                base.components.vae,
                base.components.scheduler_config,
                device=self._device,
            )
        log.info("loaded", model=manifest.id, base=base_manifest.id)
        return Variant(manifest, base.encoder, denoiser, erasure)

    def _base(self, manifest: Manifest) -> Base:
        digest = manifest.content_digest
        if digest not in self._bases:
            components = load_base(
                self._registry.path(manifest.id),
                manifest,
                device=self._device,
                dtype=self._dtype,
            )
            self._bases[digest] = Base(
                components,
                components.prompt_encoder(),
                Denoiser(
                    components.unet,
                    components.vae,
                    components.scheduler_config,
                    device=self._device,
                ),
            )
            log.info("loaded", model=manifest.id)
            while len(self._bases) > MAX_BASES:
                _, forgotten = self._bases.popitem(last=False)
                # A variant would keep the base in memory that it stands on.
                for name, variant in list(self._variants.items()):
                    if variant.encoder is forgotten.encoder:
                        del self._variants[name]
        self._bases.move_to_end(digest)
        return self._bases[digest]
