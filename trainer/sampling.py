"""Samples while a model is being erased: what a few prompts draw by now, in few steps.

Noise comes from generators of their own, and the UNet is only read: the erased model is the same,
bit for bit, with samples and without. They are a courtesy: where the device is too small or too
slow for them, there are none.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from core.errors import DeviceOutOfMemory, PictureNotFinite
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.samples import BASE, STAGE_ONE, Sample, Samples
from core.specs import Concept, ErasureSpec
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.erasure import Erasure
from diffusion.footprint import measure
from diffusion.full_memory import within_memory
from diffusion.limits import BatchLimits
from diffusion.loading import load_unet_and_vae
from diffusion.model_concepts import ModelConcepts
from diffusion.previews import LONGEST_PX, to_jpeg
from diffusion.prompts import PromptEncoder
from diffusion.schedulers import SchedulerFactory
from trainer.room import free_memory_bytes, has_room_for_samples
from trainer.subjects import Subject, subjects

STEPS = 12
GUIDANCE_SCALE = 5.0
ROUNDS = 6
"""During stage 2, at steps evenly apart; the last shows its end."""
LONGEST_S = 30.0
"""A round that takes longer is given up, and there are no more."""
USABLE = 0.5
"""Of the memory that is free: the rest is for what the erasure takes meanwhile."""
SHARE = 0.1
"""Of a run's time that rounds on the way may take: one is left out while they have had more."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Showing:
    """That samples are wanted, how many in each round, and who is shown them."""

    count: int
    show: Callable[[Samples], None]


class Sampler:
    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: dict[str, Any],
        encoder: PromptEncoder,
        drawn: Sequence[Subject],
        show: Callable[[Samples], None],
        *,
        native_px: int,
        rows: int,
        clock: Clock = time.monotonic,
    ) -> None:
        """
        Args:
            unet: whatever it has become is what draws.
            native_px: the side of the pictures.
            rows: of a UNet pass, at the most.
        """
        self.unet = unet
        self.scheduler_config = scheduler_config
        self.seconds = 0.0
        """What the samples have cost so far."""
        self._vae = vae
        self._schedulers = SchedulerFactory(scheduler_config)
        self._encoder = encoder
        self._subjects = drawn
        self._show = show
        self._native_px = native_px
        self._rows = rows
        self._clock = clock
        self._began_at = clock()
        self._gave_up = False

    def before(self) -> None:
        """What the base draws."""
        self._round(BASE, Erasure())

    def after_stage_one(self, erasure: Erasure) -> None:
        self._round(STAGE_ONE, erasure)

    def during_stage_two(self, before: int, done: int, total: int, erasure: Erasure) -> None:
        """A round, if one became due between the steps `before` and `done`, of `total`."""
        if done * ROUNDS // total == before * ROUNDS // total:
            return
        spent_much = self.seconds > SHARE * (self._clock() - self._began_at)
        if done == total or not spent_much:
            self._round(f"step-{done}", erasure)

    def _round(self, after: str, erasure: Erasure) -> None:
        if self._gave_up:
            return
        began_at = self._clock()
        drawing = partial(self._draw, erasure, began_at + LONGEST_S)
        try:
            pictures = within_memory(drawing, "there is no room on the device for samples")
        except (DeviceOutOfMemory, PictureNotFinite):
            # If something is wrong with the model, training and evaluation say so.
            pictures = None
        self.seconds += self._clock() - began_at
        if pictures is None:
            self._gave_up = True
            return
        shown = [
            Sample(prompt=one.prompt, seed=one.seed, jpeg=to_jpeg(picture))
            for one, picture in zip(self._subjects, pictures, strict=True)
        ]
        self._show(Samples(after=after, pictures=tuple(shown)))

    def _draw(self, erasure: Erasure, until: float) -> list[Image.Image] | None:
        """One picture for each subject; None: it takes too long.

        Raises:
            DeviceOutOfMemory, PictureNotFinite.
            RuntimeError: memory ran out while a prompt was encoded.
        """
        denoiser = Denoiser(
            *(self.unet, self._vae, self._schedulers),
            device=self.unet.device,
            limits=BatchLimits(self._rows),
        )
        for place in range(len(self._subjects)):
            denoiser.join(self._request(place, erasure))
        latents: dict[Hashable, Tensor] = {}
        while len(denoiser):
            latents |= {finished.key: finished.latents for finished in denoiser.step()}
            if len(denoiser) and self._clock() > until:
                return None
        # One after the other: decoding takes more memory than anything else here.
        pictures = [denoiser.decode([latents[place]])[0] for place in range(len(latents))]
        for picture in pictures:
            picture.thumbnail((LONGEST_PX, LONGEST_PX))
        return pictures

    def _request(self, place: int, erasure: Erasure) -> DenoiseRequest:
        subject = self._subjects[place]
        wanted, empty = (
            erasure.map_prompt(self._encoder.encode(text)) for text in (subject.prompt, "")
        )
        return DenoiseRequest.of(
            *(place, wanted, empty),
            seed=subject.seed,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            width_px=self._native_px,
            height_px=self._native_px,
        )


def open_sampler(
    base: Path,
    manifest: Manifest | None,
    spec: ErasureSpec,
    concepts: Sequence[Concept],
    encoder: PromptEncoder | None,
    known: ModelConcepts | None,
    showing: Showing | None,
    *,
    native_px: int,
    device: torch.device | str,
) -> Sampler | None:
    """It has shown what the base draws. None where nothing is to be shown, or no room for it.

    Args:
        encoder: None where no prompt is read; then none is drawn.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    if showing is None or not showing.count or encoder is None or not concepts:
        return None
    if not has_room_for_samples(base, spec, concepts, device=device):
        return None
    unet, vae, scheduler_config = load_unet_and_vae(base, manifest, device=device)
    picture = measure(
        ModelFiles(base, manifest), dtype=torch.float32, width_px=native_px, height_px=native_px
    )
    free = free_memory_bytes(device)
    fit = 2 * showing.count
    if free is not None:
        if picture.drawing(guided=True) > USABLE * free:
            return None
        fit = min(fit, int(USABLE * free) // picture.row)
    sampler = Sampler(
        *(unet, vae, scheduler_config, encoder),
        subjects(concepts, spec, known, showing.count),
        showing.show,
        native_px=native_px,
        rows=fit,
    )
    sampler.before()
    return sampler
