"""Latents -> pictures, or an error with a name: never a black square."""

from collections.abc import Mapping, Sequence

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from core.errors import DeviceOutOfMemory, PictureNotFinite
from diffusion.full_memory import ran_out
from diffusion.limits import BatchLimits

MAX_BATCH = 16


def to_pictures(
    vae: AutoencoderKL, latents: Sequence[Tensor], limits: BatchLimits
) -> list[Image.Image]:
    """Decode (4, h, w) latents, those of one shape together, and keep their order.

    Args:
        limits: of one pass; lowered where memory demands it.

    Raises:
        PictureNotFinite: names the places in `latents` whose picture is not made of numbers.
        DeviceOutOfMemory
    """
    pixels: dict[int, Tensor] = {}
    for places in _same_shape(latents):
        pixels |= _decoded(vae, {place: latents[place] for place in places}, limits)
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


def _decoded(
    vae: AutoencoderKL, latents: Mapping[int, Tensor], limits: BatchLimits
) -> dict[int, Tensor]:
    """Those of one shape, (4, h, w), by their places -> (3, H, W); in as many passes as need be.

    Raises:
        DeviceOutOfMemory
    """
    pixels: dict[int, Tensor] = {}
    waiting = list(latents)
    _, height, width = latents[waiting[0]].shape
    while waiting:
        batch = waiting[: limits.rows((height, width), len(waiting))]
        try:
            decoded = _decode(vae, torch.stack([latents[place] for place in batch]))
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if len(batch) == 1:
                raise DeviceOutOfMemory("one picture alone does not fit the VAE") from error
            limits.lower((height, width), len(batch) // 2)
            # Out of this block: the error holds what the pass had computed.
            continue
        pixels.update(zip(batch, decoded, strict=True))
        del waiting[: len(batch)]
    return pixels


def _decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """(n, 4, h, w) -> (n, 3, H, W), float32, about [-1, 1]."""
    scaled = latents.to(vae.dtype) / vae.config.scaling_factor
    decoded: Tensor = vae.decode(scaled, return_dict=False)[0]
    return decoded.float()


def _picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] -> 8 bit RGB, rounded as diffusers does."""
    unit = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    return Image.fromarray((unit * 255).round().to(torch.uint8).cpu().numpy())
