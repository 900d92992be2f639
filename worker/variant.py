"""A model ready to draw: whose weights, through which map of the text."""

from dataclasses import dataclass, field
from functools import partial

import torch

from core.manifests import Manifest
from core.schedulers import SCHEDULERS, label_of
from diffusion.denoiser import Denoiser
from diffusion.erasure import Erasure
from diffusion.limits import BatchLimits, Sides
from diffusion.loading import Components
from diffusion.prompts import EncodedPrompt, PromptEncoder
from diffusion.swapping import NOTHING, Delta, SwappableUNet
from diffusion.text_memory import remember_projections
from worker.room import Room


class Base:
    """A base model on the device, and the batch of all that draws with its very weights."""

    def __init__(
        self,
        manifest: Manifest,
        components: Components,
        device: torch.device,
        room: Room | None = None,
    ) -> None:
        """
        Args:
            room: knows how many rows of a size fit.
        """
        self._room = room
        self.manifest = manifest
        """What its files were held against."""
        self.encoder = components.prompt_encoder()
        remember_projections(components.unet)
        self.unet = SwappableUNet(components.unet)
        self._components = components
        self._device = device
        self.denoiser = self.batch_of(NOTHING)

    def scheduler_label(self, name: str | None) -> tuple[str, str]:
        """What A1111 calls a scheduler, or the model's own for None, and its noise levels."""
        if name is None:
            return label_of(self._components.scheduler_config)
        return SCHEDULERS[name].label, SCHEDULERS[name].schedule

    @property
    def size_bytes(self) -> int:
        """What its weights take on the device."""
        parts = self._components
        second = [parts.second.text_encoder] if parts.second else []
        modules = (parts.unet, parts.vae, parts.text_encoder, *second)
        return sum(one.nbytes for module in modules for one in module.parameters())

    def batch_of(self, delta: Delta) -> Denoiser:
        """The batch of those who draw with `delta`'s tensors in the UNet."""
        return Denoiser(
            self._components.unet,
            self._components.vae,
            self._components.scheduler_config,
            device=self._device,
            wear=partial(self.unet.wear, delta),
            limits=self._limits(),
        )

    def _limits(self) -> BatchLimits:
        if self._room is None:
            return BatchLimits()
        room, digest = self._room, self.manifest.content_digest
        px_per_latent = 2 ** (len(self._components.vae.config.block_out_channels) - 1)

        def size_px(sides: Sides) -> tuple[int, int]:
            return sides[1] * px_per_latent, sides[0] * px_per_latent

        return BatchLimits(
            found=lambda sides: room.rows(digest, size_px(sides)),
            remember=lambda sides, rows: room.lower(digest, size_px(sides), rows),
        )


@dataclass(frozen=True)
class Variant:
    manifest: Manifest
    base: Base
    denoiser: Denoiser
    erasure: Erasure = field(default_factory=Erasure)
    """Its text maps; the tensors that it changes are in `delta`."""
    delta: Delta = NOTHING

    @property
    def model_id(self) -> str:
        return self.manifest.id

    @property
    def digest(self) -> str:
        return self.manifest.content_digest

    @property
    def encoder(self) -> PromptEncoder:
        return self.base.encoder

    def embed(self, prompt: str) -> EncodedPrompt:
        """The prompt as this model sees it."""
        return self.erasure.map_prompt(self.encoder.encode(prompt))
