"""Many requests, one UNet batch, each at its own step: continuous batching.

Between two steps requests join and leave. Every row has its own timestep, guidance, seed and
scheduler; rows of one latent shape share a forward pass. The same request gives the same
picture whatever shares its batch, within float rounding; alone, it gives the same bits always.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from core.errors import DeviceOutOfMemory, SizeNotDrawable
from diffusion.denoise_request import DenoiseRequest
from diffusion.full_memory import ran_out, within_memory
from diffusion.limits import BatchLimits
from diffusion.pictures import MAX_BATCH, to_pictures
from diffusion.previews import predicted, to_previews
from diffusion.rehearsing import CallableUNet
from diffusion.schedulers import Scheduler, SchedulerFactory
from diffusion.text_memory import TextMemory
from diffusion.twin_rows import twin_rows


@dataclass(frozen=True)
class Finished:
    key: Hashable
    latents: Tensor
    """(4, h, w), scaled as the UNet sees them."""


class _Row:
    """A request under way: its latents, and how far it is."""

    def __init__(
        self,
        request: DenoiseRequest,
        latents: Tensor,
        scheduler: Scheduler,
        options: dict[str, Any],
    ) -> None:
        self.request = request
        self.latents = latents
        self.scheduler = scheduler
        self.options = options
        self.done = 0
        self.predicted: Tensor | None = None
        """(4, h, w), the end that the last step foresaw; told only of rows that are watched."""

    @property
    def finished(self) -> bool:
        return self.done == len(self.scheduler.timesteps)

    @property
    def timestep(self) -> Tensor:
        return self.scheduler.timesteps[self.done]

    def advance(self, noise: Tensor) -> None:
        """One scheduler step along `noise` (4, h, w), the guided prediction."""
        if self.request.watched:
            seen = self.scheduler.scale_model_input(self.latents, self.timestep)
            self.predicted = predicted(seen, noise, self.timestep, self.scheduler)
        stepped = self.scheduler.step(
            noise[None], self.timestep, self.latents[None], return_dict=False, **self.options
        )
        self.latents = stepped[0][0]
        self.done += 1


class Denoiser:
    """The batch of one UNet. Belongs to the thread that owns the device."""

    def __init__(
        self,
        unet: CallableUNet,
        vae: AutoencoderKL,
        schedulers: SchedulerFactory,
        *,
        device: torch.device | str,
        limits: BatchLimits | None = None,
        decoding_limits: BatchLimits | None = None,
        wear: Callable[[], bool] = lambda: False,
        alone_unet: CallableUNet | None = None,
    ) -> None:
        """
        Args:
            limits: of one pass of the UNet; None is the usual bound.
            decoding_limits: the same of the VAE, whose rows are pictures.
            wear: puts the weights of this batch on a UNet that others share, and says whether it
                had to; raises WeightsDiffer.
            alone_unet: draws rows that are alone, with the bits that `unet` would not give them
                every time; None: it does.
        """
        self.wear = wear
        self._unet = unet
        self._alone_unet = alone_unet or unet
        # The UNet looks through all of its modules to answer this.
        self._dtype = unet.dtype
        self._vae = vae
        self._schedulers = schedulers
        self._device = torch.device(device)
        self._limits = limits or BatchLimits()
        self._decoding_limits = decoding_limits or BatchLimits(MAX_BATCH)
        self._reads_pooled = unet.config.addition_embed_type == "text_time"
        self._rows: dict[Hashable, _Row] = {}
        self._texts = TextMemory(device, self._dtype)
        self._px_per_latent: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self._multiple_px = self._px_per_latent * 2 ** (len(unet.config.block_out_channels) - 1)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._rows

    def join(self, request: DenoiseRequest) -> None:
        """Take part from the next step on.

        Raises:
            SizeNotDrawable: a side is not a multiple of what VAE and UNet halve it by.
            SchedulerNotUsable
        """
        assert request.key not in self._rows, request.key
        assert request.negative is not None or not request.guided, "guidance needs a negative"
        assert (request.pooled is not None) == self._reads_pooled, "SDXL alone reads pooled text"
        if request.width_px % self._multiple_px or request.height_px % self._multiple_px:
            raise SizeNotDrawable(
                f"{request.width_px} x {request.height_px}: sides must be multiples of "
                f"{self._multiple_px} pixels"
            )
        generator = torch.Generator("cpu").manual_seed(request.seed)
        # Schedulers that add noise draw it from the row's own generator, after the first noise.
        scheduler, options = self._schedulers.create(
            request.num_inference_steps, name=request.scheduler, generator=generator
        )
        noise = torch.randn(
            self._unet.config.in_channels,
            request.height_px // self._px_per_latent,
            request.width_px // self._px_per_latent,
            generator=generator,
            dtype=self._dtype,
        )
        latents = noise.to(self._device) * scheduler.init_noise_sigma
        self._rows[request.key] = _Row(request, latents, scheduler, options)

    def leave(self, key: Hashable) -> bool:
        """Drop a row, finished or not; False when there is none of that key."""
        left = self._rows.pop(key, None) is not None
        self._rest()
        return left

    def steps_done(self, key: Hashable) -> int:
        return self._rows[key].done

    def steps_total(self, key: Hashable) -> int:
        """UNet passes in all; some schedulers take more than the steps that were asked for."""
        return len(self._rows[key].scheduler.timesteps)

    def step(self) -> list[Finished]:
        """Advance every row by one step; rows that are done leave the batch and are returned.

        Raises:
            DeviceOutOfMemory: even the smallest batch does not fit. Nothing is lost: rows keep
                the step they have reached, and finished ones are returned by a later call.
            WeightsDiffer
        """
        # Whatever others did since: no row ever meets the weights of another model.
        self.wear()
        groups: dict[tuple[torch.Size, bool, _Row | None], list[_Row]] = {}
        for row in self._rows.values():
            if not row.finished:
                own = row if row.request.alone else None
                groups.setdefault((row.latents.shape, row.request.guided, own), []).append(row)
        with torch.inference_mode():
            for (_, guided, _), rows in groups.items():
                self._advance(rows, guided=guided)
        self._texts.end_step()

        done = [row for row in self._rows.values() if row.finished]
        for row in done:
            del self._rows[row.request.key]
        self._rest()
        return [Finished(row.request.key, row.latents) for row in done]

    def _rest(self) -> None:
        """An empty batch holds no texts: it may be one of many, and empty for long."""
        if not self._rows:
            self._texts.clear()

    def previews(self, keys: Sequence[Hashable]) -> list[Image.Image]:
        """What the pictures of watched rows will look like, small, in the same order.

        Each has done a step. None are shown where a scheduler cannot tell.

        Raises:
            PictureNotFinite, DeviceOutOfMemory.
        """
        rows = [self._rows[key] for key in keys]
        assert all(row.request.watched and row.done for row in rows), "not watched, or not begun"
        latents = [row.predicted for row in rows if row.predicted is not None]
        if len(latents) < len(rows):
            return []
        with torch.inference_mode():
            return to_previews(self._vae, latents, self._px_per_latent, self._decoding_limits)

    def decode(self, latents: Sequence[Tensor]) -> list[Image.Image]:
        """Latents as `Finished` holds them -> pictures, in the same order.

        Raises:
            PictureNotFinite: names the places in `latents` whose picture is not made of numbers.
            DeviceOutOfMemory
        """
        with torch.inference_mode():
            return to_pictures(self._vae, latents, self._decoding_limits)

    def _advance(self, rows: list[_Row], *, guided: bool) -> None:
        """One step for rows of one shape, in as many forward passes as memory demands."""
        waiting = list(rows)
        sides = rows[0].latents.shape[1], rows[0].latents.shape[2]
        while waiting:
            each = 2 if guided else 1
            size = max(1, self._limits.rows(sides, each * len(waiting)) // each)
            batch = waiting[:size]
            try:
                noise = self._guided_noise(batch) if guided else self._noise(batch)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                if len(batch) == 1:
                    raise DeviceOutOfMemory("one picture alone does not fit the device") from error
                self._texts.clear()
                # Half of the pictures: a guided one has two rows.
                self._limits.lower(sides, len(batch) if guided else len(batch) // 2)
                continue
            stepping = partial(self._step_along, batch, noise)
            within_memory(stepping, "a scheduler's step does not fit the device")
            del waiting[: len(batch)]

    @staticmethod
    def _step_along(rows: list[_Row], noise: Tensor) -> None:
        for row, prediction in zip(rows, noise, strict=True):
            row.advance(prediction)

    def _noise(self, rows: list[_Row]) -> Tensor:
        requests = [row.request for row in rows]
        return self._predict(rows, [(request.prompt, request.pooled) for request in requests])

    def _guided_noise(self, rows: list[_Row]) -> Tensor:
        requests = [row.request for row in rows]
        negatives = [
            (request.negative, request.negative_pooled)
            for request in requests
            if request.negative is not None
        ]
        prompts = [(request.prompt, request.pooled) for request in requests]
        scales = [row.request.guidance_scale for row in rows]
        # Before the pass: on a GPU, copying it there would wait until the pass is over.
        guidance = torch.tensor(scales, dtype=self._dtype, device=self._device)
        with twin_rows():
            unguided, wanted = self._predict([*rows, *rows], [*negatives, *prompts]).chunk(2)
        return unguided + guidance[:, None, None, None] * (wanted - unguided)

    def _predict(self, rows: list[_Row], texts: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        """The UNet's output for each row, (n, 4, h, w), with one embedding per row."""
        alone = rows[0].request.alone
        unet = self._alone_unet if alone else self._unet
        inputs = [row.scheduler.scale_model_input(row.latents, row.timestep) for row in rows]
        output: Tensor = unet(
            torch.stack(inputs),
            torch.stack([row.timestep.float() for row in rows]).to(self._device),
            encoder_hidden_states=self._texts.stacked(
                [embedding for embedding, _ in texts], alone=alone
            ),
            added_cond_kwargs=self._added_conditions(rows, [pooled for _, pooled in texts]),
            return_dict=False,
        )[0]
        return output

    def _added_conditions(
        self, rows: list[_Row], pooled: Sequence[Tensor | None]
    ) -> dict[str, Tensor] | None:
        if not self._reads_pooled:
            return None
        sizes = [row.request.size_condition for row in rows]
        return {
            "text_embeds": self._stacked([one for one in pooled if one is not None]),
            "time_ids": self._stacked(sizes),
        }

    def _stacked(self, tensors: Iterable[Tensor]) -> Tensor:
        return torch.stack([tensor.to(self._device, self._dtype) for tensor in tensors])
