"""Pictures on disk, by all that decides them, so that none is drawn twice."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from core.files import write_atomically
from diffusion.erasure import Erasure
from trainer.evaluation.drawing import Order, Studio

DRAWN_BY = "denoiser 1"
"""Part of every key: raise it when the same order would give another picture."""
PICTURES = "pictures"
"""The folder in a cache."""
DIGITS = 16
"""Of the digest of a model's weights, in the name of the folder of its pictures."""


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
        return self._folder / weights[:DIGITS] / f"{name}.png"


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
