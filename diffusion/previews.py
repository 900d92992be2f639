"""What a picture will look like, told from a latent that is still noisy, small and cheap.

The UNet sees x = a x0 + s e, with a^2 + s^2 = 1, whatever the scheduler makes of it. So one
prediction gives x0 at any step. It is shrunk and decoded: a linear map from latents to colours
would be cheaper, but explains 0.83 of the variance of the shipped model's pictures even when it
is fitted to them, and shows blots.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from diffusion.full_memory import within_memory
from diffusion.limits import BatchLimits
from diffusion.pictures import to_pictures

LONGEST_PX = 128
JPEG_QUALITY = 80


def predicted(seen: Tensor, output: Tensor, timestep: Tensor, scheduler: Any) -> Tensor | None:
    """x0, (4, h, w), as the UNet predicts it from what it saw.

    None: the scheduler is of another process, such as EDM's, and does not tell a and s.

    Args:
        seen: (4, h, w), what the UNet was given: the scheduler's scaling included.
        output: (4, h, w), its guided prediction.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        return None
    kept = scheduler.alphas_cumprod[int(timestep.round())].to(seen.device)
    a, s = kept.sqrt(), (1 - kept).sqrt()
    match scheduler.config.prediction_type:
        case "epsilon":
            return (seen - s * output) / a
        case "v_prediction":
            return a * seen - s * output
        case _:
            return output


def to_previews(
    vae: AutoencoderKL, latents: Sequence[Tensor], px_per_latent: int, limits: BatchLimits
) -> list[Image.Image]:
    """(4, h, w) latents -> pictures of at most `LONGEST_PX` pixels, whatever size they are of.

    Args:
        limits: of one pass of the VAE.

    Raises:
        PictureNotFinite, DeviceOutOfMemory.
    """

    def shown() -> list[Image.Image]:
        shrunk = [_shrunk(one, LONGEST_PX // px_per_latent) for one in latents]
        return to_pictures(vae, shrunk, limits)

    return within_memory(shown, "there is no room on the device for previews")


def to_jpeg(picture: Image.Image) -> str:
    """The file in base64, as JSON carries it."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def _shrunk(latents: Tensor, longest: int) -> Tensor:
    sides = latents.shape[1:]
    scale = longest / max(sides)
    if scale >= 1:
        return latents
    size = [max(1, round(side * scale)) for side in sides]
    return F.interpolate(latents[None], size=size, mode="area")[0]
