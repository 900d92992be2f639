"""Pictures of many prompts, drawn as a worker draws them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from diffusion.denoiser import Denoiser, DenoiseRequest
from diffusion.erasure import Erasure
from diffusion.loading import Components

BATCH = 16


@dataclass(frozen=True)
class DrawingOptions:
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    seed: int = 0
    """Prompt number i of a list is drawn from seed + i, by whatever model."""


class Studio:
    """One base model; draws through any erasure of it that is a map of the text."""

    def __init__(self, components: Components, options: DrawingOptions) -> None:
        self.encoder = components.prompt_encoder()
        self._denoiser = Denoiser(
            components.unet,
            components.vae,
            components.scheduler_config,
            device=components.unet.device,
        )
        config = components.unet.config.sample_size, len(components.vae.config.block_out_channels)
        self._side_px: int = config[0] * 2 ** (config[1] - 1)
        self._options = options

    def draw(self, prompts: Sequence[str], erasure: Erasure) -> list[Image.Image]:
        """Raises PictureNotFinite."""
        assert not erasure.tensors, "its weights would have to be swapped in"
        pictures: list[Image.Image] = []
        for start in range(0, len(prompts), BATCH):
            for place, prompt in enumerate(prompts[start : start + BATCH], start=start):
                self._denoiser.join(self._request(place, prompt, erasure))
            latents: dict[Hashable, Tensor] = {}
            while len(self._denoiser):
                latents |= {finished.key: finished.latents for finished in self._denoiser.step()}
            pictures += self._denoiser.decode(
                [latents[place] for place in range(start, start + len(latents))]
            )
        return pictures

    def _request(self, place: int, prompt: str, erasure: Erasure) -> DenoiseRequest:
        wanted = erasure.map_prompt(self.encoder.encode(prompt))
        empty = erasure.map_prompt(self.encoder.encode(""))
        return DenoiseRequest(
            key=place,
            prompt=wanted.embedding,
            negative=empty.embedding,
            pooled=wanted.pooled,
            negative_pooled=empty.pooled,
            seed=self._options.seed + place,
            num_inference_steps=self._options.num_inference_steps,
            guidance_scale=self._options.guidance_scale,
            width_px=self._side_px,
            height_px=self._side_px,
        )
