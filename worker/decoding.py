"""Finished latents to pictures, and an error in the place of each that is none."""

from collections.abc import Sequence

from PIL.Image import Image

from core.errors import PictureNotFinite
from diffusion.denoiser import Denoiser, Finished


def decoded(denoiser: Denoiser, finished: Sequence[Finished]) -> list[Image | PictureNotFinite]:
    """Pictures, and the error in the place of each that is not made of numbers."""
    try:
        return [*denoiser.decode([done.latents for done in finished])]
    except PictureNotFinite as error:
        if len(finished) == 1:
            return [error]
        return [picture for done in finished for picture in decoded(denoiser, [done])]
