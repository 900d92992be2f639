"""Pictures of many prompts, drawn in batches, as a worker draws them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.erasure import Erasure
from diffusion.limits import BatchLimits
from diffusion.loading import Components
from diffusion.schedulers import SchedulerFactory
from diffusion.swapping import SwappableUNet

BATCH = 16


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
            SchedulerFactory(components.scheduler_config),
            device=components.unet.device,
            limits=BatchLimits(2 * batch),
        )
        config = components.unet.config.sample_size, len(components.vae.config.block_out_channels)
        self.side_px: int = config[0] * 2 ** (config[1] - 1)
        self.options = options
        self._batch = batch

    def wear(self, erasure: Erasure) -> None:
        """Make the UNet the erased one; a text map acts on the prompts.

        Raises:
            ModelUnsupported: the erasure was made for another UNet.
        """
        self.unet.wear(self.unet.prepared(erasure.tensors))

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
        self.wear(erasure)
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
        return DenoiseRequest.of(
            *(place, wanted, empty),
            seed=order.seed,
            num_inference_steps=self.options.num_inference_steps,
            guidance_scale=order.guidance_scale,
            width_px=self.side_px,
            height_px=self.side_px,
        )
