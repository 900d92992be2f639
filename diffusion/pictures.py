"""Latents -> pictures, or an error with a name: never a black square."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from core.errors import DeviceOutOfMemory, PictureNotFinite

MAX_BATCH = 16


def to_pictures(vae: AutoencoderKL, latents: Sequence[Tensor]) -> list[Image.Image]:
    """Decode (4, h, w) latents, those of one shape together, and keep their order.

    Raises:
        PictureNotFinite: names the places in `latents` whose picture is not made of numbers.
        DeviceOutOfMemory
    """
    pixels: dict[int, Tensor] = {}
    for places in _same_shape(latents):
        for start in range(0, len(places), MAX_BATCH):
            batch = places[start : start + MAX_BATCH]
            decoded = _decode(vae, torch.stack([latents[place] for place in batch]))
            pixels.update(zip(batch, decoded, strict=True))
    broken = [place for place in range(len(latents)) if not bool(pixels[place].isfinite().all())]
    if broken:
        raise PictureNotFinite(
            f"picture {', '.join(map(str, broken))} of {len(latents)} is not made of numbers: the "
            "model overflowed; draw with full precision, or with another model"
        )
    return [_picture(pixels[place]) for place in range(len(latents))]


def _same_shape(latents: Sequence[Tensor]) -> list[list[int]]:
    places: dict[torch.Size, list[int]] = {}
    for place, latent in enumerate(latents):
        places.setdefault(latent.shape, []).append(place)
    return list(places.values())


def _decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """(n, 4, h, w) -> (n, 3, H, W), float32, about [-1, 1]; alone when together does not fit."""
    try:
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor
        decoded: Tensor = vae.decode(scaled, return_dict=False)[0]
    except torch.OutOfMemoryError as error:
        if len(latents) == 1:
            raise DeviceOutOfMemory("one picture alone does not fit the VAE") from error
        return torch.cat([_decode(vae, latent[None]) for latent in latents])
    return decoded.float()


def _picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] -> 8 bit RGB, rounded as diffusers does."""
    unit = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    return Image.fromarray((unit * 255).round().to(torch.uint8).cpu().numpy())
