"""A model ready to draw: whose weights, through which map of the text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakSet

import structlog
import torch

from core.manifests import Manifest
from core.schedulers import SCHEDULERS, label_of
from diffusion.compiling import CompiledUNet
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.erasure import Erasure
from diffusion.limits import BatchLimits, Sides
from diffusion.loading import Components
from diffusion.pictures import MAX_BATCH
from diffusion.preparing import prepare_to_draw
from diffusion.prompts import EncodedPrompt, PromptEncoder
from diffusion.rehearsing import CallableUNet, rehearsal
from diffusion.schedulers import SchedulerFactory
from diffusion.swapping import NOTHING, Delta, SwappableUNet
from worker.late_checks import LateCheck
from worker.room import Room

log = structlog.get_logger()


class Base:
    """A base model on the device, and the batch of all that draws with its very weights."""

    def __init__(
        self,
        manifest: Manifest,
        components: Components,
        device: torch.device,
        room: Room | None = None,
        buckets: Sequence[int] = (),
        most_rows: int = 32,
        digested: LateCheck | None = None,
        late_check: LateCheck | None = None,
    ) -> None:
        """
        Args:
            room: knows how many rows of a size fit.
            buckets: of the UNet when it is compiled; none: it is not.
            most_rows: of one UNet pass, whatever would fit.
            digested: of its weights; None: they were checked.
            late_check: of all of its files; None: all of them were checked.
        """
        self.digested = digested or LateCheck()
        """No weight is written to before."""
        self.late_check = late_check or LateCheck()
        self._most_rows = most_rows
        self._room = room
        self.manifest = manifest
        """What its files were held against."""
        self.encoder = components.prompt_encoder()
        prepare_to_draw(components)
        self.unet = SwappableUNet(components.unet)
        self._compiled = CompiledUNet(components.unet, buckets) if buckets else None
        self._components = components
        # Of all batches: what is remembered of them is the same for each.
        self._schedulers = SchedulerFactory(components.scheduler_config)
        self._device = device
        # Of all batches: there is one VAE.
        self._decoding_limits = self._limits_of_decoding()
        self._batches: WeakSet[Denoiser] = WeakSet()
        self.denoiser = self.batch_of(NOTHING)

    def scheduler_label(self, name: str | None) -> tuple[str, str]:
        """What A1111 calls a scheduler, or the model's own for None, and its noise levels."""
        if name is None:
            return label_of(self._components.scheduler_config)
        return SCHEDULERS[name].label, SCHEDULERS[name].schedule

    @property
    def _drawing_unet(self) -> CallableUNet:
        return self._compiled or self._components.unet

    @property
    def _px_per_latent(self) -> int:
        return int(2 ** (len(self._components.vae.config.block_out_channels) - 1))

    @property
    def size_bytes(self) -> int:
        """What its weights take on the device, with the copies of those that are swapped."""
        parts = self._components
        second = [parts.second.text_encoder] if parts.second else []
        modules = (parts.unet, parts.vae, parts.text_encoder, *second)
        weights = sum(one.nbytes for module in modules for one in module.parameters())
        return weights + self.unet.kept_bytes

    @property
    def in_use(self) -> bool:
        """Pictures are in one of its batches: whoever draws them keeps it in memory."""
        return any(len(batch) for batch in self._batches)

    def warm_up(self) -> None:
        """Compile for the native size, if that is wanted, draw one picture of one step, and find
        out how many rows a pass is worth having, so that no request waits for that.

        Raises:
            AppError: whatever hinders drawing.
        """
        side_px = self.manifest.drawing.native_px
        side = side_px // self._px_per_latent
        if self._compiled:
            try:
                self._compiled.compile_for((side, side))
            except RuntimeError as error:
                log.warning("not compiled", model=self.manifest.id, reason=str(error)[:1000])
        empty, batch = self.encoder.encode(""), self.batch_of(NOTHING)
        batch.join(
            DenoiseRequest.of(
                *("warm-up", empty, empty),
                seed=0,
                num_inference_steps=1,
                guidance_scale=2.0,
                width_px=side_px,
                height_px=side_px,
            )
        )
        while len(batch):
            batch.decode([done.latents for done in batch.step()])
        # What is found is the room's; every batch of this base learns it from there.
        self._limits().rows((side, side), self._most_rows)

    def batch_of(self, delta: Delta) -> Denoiser:
        """The batch of those who draw with `delta`'s tensors in the UNet."""
        batch = Denoiser(
            self._drawing_unet,
            self._components.vae,
            self._schedulers,
            device=self._device,
            wear=partial(self.unet.wear, delta),
            limits=self._limits(),
            decoding_limits=self._decoding_limits,
            # Loaded again, the model runs uncompiled, which gives other bits.
            alone_unet=self._components.unet,
        )
        self._batches.add(batch)
        return batch

    def _limits(self) -> BatchLimits:
        if self._room is None:
            return BatchLimits(self._most_rows)
        room, digest = self._room, self.manifest.content_digest
        # Not the base: its batch holds these, so a cycle would keep the weights of a base that
        # was forgotten until the collector runs.
        unet, device = self._drawing_unet, self._device
        size_px = partial(_size_px, self._px_per_latent)
        return BatchLimits(
            self._most_rows,
            found=lambda sides: room.rows(digest, size_px(sides)),
            fitting=lambda sides: room.fitting(digest, size_px(sides)),
            remember=lambda sides, rows: room.lower(digest, size_px(sides), rows),
            fitted=lambda sides, rows: room.fitted(digest, size_px(sides), rows),
            worthwhile=lambda sides, waiting: room.worthwhile(
                digest,
                size_px(sides),
                waiting,
                lambda rows: rehearsal(unet, sides, rows, device),
            ),
        )

    def _limits_of_decoding(self) -> BatchLimits:
        if self._room is None:
            return BatchLimits(MAX_BATCH)
        room, digest = self._room, self.manifest.content_digest
        size_px = partial(_size_px, self._px_per_latent)

        def decodable(sides: Sides) -> int | None:
            return room.decodable(digest, size_px(sides))

        return BatchLimits(MAX_BATCH, now=decodable, fitting=decodable)


def _size_px(px_per_latent: int, sides: Sides) -> tuple[int, int]:
    """Width and height, of latents' height and width."""
    return sides[1] * px_per_latent, sides[0] * px_per_latent


@dataclass(frozen=True)
class Variant:
    manifest: Manifest
    base: Base
    denoiser: Denoiser
    erasure: Erasure = field(default_factory=Erasure)
    """Its text maps; the tensors that it changes are in `delta`."""
    delta: Delta = NOTHING
    late_check: LateCheck = field(default_factory=LateCheck)
    """Of its files and its base's: nothing leaves before that was made."""

    @property
    def model_id(self) -> str:
        return self.manifest.id

    @property
    def digest(self) -> str:
        return self.manifest.content_digest

    @property
    def encoder(self) -> PromptEncoder:
        return self.base.encoder

    def embed(
        self, prompt: str, *, company: Iterable[str] = (), alone: bool = False
    ) -> EncodedPrompt:
        """The prompt as this model sees it; the rest is as `PromptEncoder.encode` has it."""
        encoded = self.encoder.encode(prompt, company=company, alone=alone)
        return self.erasure.map_prompt(encoded)
