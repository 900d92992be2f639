"""Contact sheets: many small pictures on one page, to look at."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def sheet(pictures: Tensor, path: Path, *, columns: int = 16, scale: int = 1) -> None:
    """Write (n, 3, h, w) pictures in [-1, 1] as one PNG, row by row."""
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    height, width = pixels.shape[-2:]
    rows = -(-len(pixels) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for at, picture in enumerate(pixels):
        tile = Image.fromarray(picture.permute(1, 2, 0).numpy())
        page.paste(tile, (at % columns * width, at // columns * height))
    page.resize((page.width * scale, page.height * scale)).save(path)
