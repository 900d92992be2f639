"""Pictures of many prompts, drawn in batches as a worker draws them, and none of them twice."""

import hashlib
import io
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from core.files import write_atomically
from diffusion.denoiser import Denoiser, DenoiseRequest
from diffusion.erasure import Erasure
from diffusion.loading import Components
from diffusion.swapping import SwappableUNet

BATCH = 16
DRAWN_BY = "denoiser 1"
"""Part of every key: raise it when the same order would give another picture."""


@dataclass(frozen=True)
class DrawingOptions:
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    seed: int = 0
    """Prompt number i of a list is drawn from seed + i, by whatever model."""


@dataclass(frozen=True)
class Order:
    """One picture to draw."""

    prompt: str
    seed: int
    guidance_scale: float


class Studio:
    """One base model; draws through any erasure of it."""

    def __init__(
        self, components: Components, options: DrawingOptions, *, batch: int = BATCH
    ) -> None:
        self.encoder = components.prompt_encoder()
        self.components = components
        self.unet = SwappableUNet(components.unet)
        self._denoiser = Denoiser(
            components.unet,
            components.vae,
            components.scheduler_config,
            device=components.unet.device,
            max_unet_rows=2 * batch,
        )
        config = components.unet.config.sample_size, len(components.vae.config.block_out_channels)
        self.side_px: int = config[0] * 2 ** (config[1] - 1)
        self.options = options
        self._batch = batch

    def draw(self, prompts: Sequence[str], erasure: Erasure) -> list[Image.Image]:
        """One picture for each prompt, from the options' seed on.

        Raises:
            PictureNotFinite.
        """
        orders = [
            Order(prompt, self.options.seed + place, self.options.guidance_scale)
            for place, prompt in enumerate(prompts)
        ]
        return self.draw_orders(orders, erasure)

    def draw_orders(
        self,
        orders: Sequence[Order],
        erasure: Erasure,
        *,
        on_batch: Callable[[int, Sequence[Image.Image]], None] = lambda _start, _pictures: None,
    ) -> list[Image.Image]:
        """
        Args:
            on_batch: is given each batch as it is done: where it starts in `orders`, the pictures.

        Raises:
            PictureNotFinite.
            ModelUnsupported: the erasure was made for another UNet.
        """
        self.unet.wear(erasure.tensors)
        pictures: list[Image.Image] = []
        for start in range(0, len(orders), self._batch):
            batch = orders[start : start + self._batch]
            for place, order in enumerate(batch):
                self._denoiser.join(self._request(place, order, erasure))
            latents: dict[Hashable, Tensor] = {}
            while len(self._denoiser):
                latents |= {finished.key: finished.latents for finished in self._denoiser.step()}
            drawn = self._denoiser.decode([latents[place] for place in range(len(batch))])
            on_batch(start, drawn)
            pictures += drawn
        return pictures

    def _request(self, place: int, order: Order, erasure: Erasure) -> DenoiseRequest:
        wanted = erasure.map_prompt(self.encoder.encode(order.prompt))
        empty = erasure.map_prompt(self.encoder.encode(""))
        return DenoiseRequest(
            key=place,
            prompt=wanted.embedding,
            negative=empty.embedding,
            pooled=wanted.pooled,
            negative_pooled=empty.pooled,
            seed=order.seed,
            num_inference_steps=self.options.num_inference_steps,
            guidance_scale=order.guidance_scale,
            width_px=self.side_px,
            height_px=self.side_px,
        )


class Album:
    """Draws through a studio what is not on disk yet, and keeps it there.

    A picture's name is a digest of all that decides it, so base models are drawn once for all
    evaluations, and an evaluation that was broken off goes on where it was.
    """

    def __init__(self, studio: Studio, folder: Path) -> None:
        self._studio = studio
        self._folder = folder
        self.drawn = 0
        self.found = 0

    def pictures(
        self,
        orders: Sequence[Order],
        erasure: Erasure,
        *,
        weights: str,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Image.Image]:
        """
        Args:
            weights: digest of the model that `erasure` makes of the studio's base.
            advance: is told how many pictures came since the last call.

        Raises:
            PictureNotFinite, ModelUnsupported.
        """
        paths = [self._path(order, weights) for order in orders]
        pictures = {place: found for place, path in enumerate(paths) if (found := _read(path))}
        self.found += len(pictures)
        advance(len(pictures))
        # The same order twice is drawn once.
        missing = {path: place for place, path in enumerate(paths) if place not in pictures}
        places = list(missing.values())

        def keep(start: int, drawn: Sequence[Image.Image]) -> None:
            for place, picture in zip(places[start:], drawn, strict=False):
                write_atomically(paths[place], _png(picture))
            advance(len(drawn))

        drawn = self._studio.draw_orders([orders[p] for p in places], erasure, on_batch=keep)
        self.drawn += len(drawn)
        by_path = {paths[place]: picture for place, picture in zip(places, drawn, strict=True)}
        return [pictures.get(place) or by_path[path] for place, path in enumerate(paths)]

    def _path(self, order: Order, weights: str) -> Path:
        studio = self._studio
        document = [
            DRAWN_BY,
            *(weights, order.prompt, order.seed, order.guidance_scale),
            *(studio.options.num_inference_steps, studio.side_px),
            str(studio.components.unet.dtype),
        ]
        name = hashlib.sha256(json.dumps(document).encode()).hexdigest()
        return self._folder / weights[:16] / f"{name}.png"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _read(path: Path) -> Image.Image | None:
    """None also for what is no picture: it is drawn anew."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (FileNotFoundError, UnidentifiedImageError):
        return None
