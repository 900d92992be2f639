"""Random changes that leave a drawing recognisable, for networks that judge pictures."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Turned by up to 15°, scaled by 0.8 to 1.15, shifted by up to 10 %, mirrored or not.

    Args:
        pictures: (n, 3, h, w) in [-1, 1] on white; white comes in at the edges.
    """
    count = len(pictures)
    angle = _uniform(count, -math.pi / 12, math.pi / 12, generator)
    scale = 1 / _uniform(count, 0.8, 1.15, generator)
    mirror = torch.where(_uniform(count, 0, 1, generator) < 0.5, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = angle.cos() * scale * mirror
    affine[:, 0, 1] = -angle.sin() * scale
    affine[:, 1, 0] = angle.sin() * scale * mirror
    affine[:, 1, 1] = angle.cos() * scale
    affine[:, 0, 2] = _uniform(count, -0.2, 0.2, generator)
    affine[:, 1, 2] = _uniform(count, -0.2, 0.2, generator)
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Some blurred, some in other colours or grey, all a little noisy and of another contrast."""
    count = len(pictures)
    blurred = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
    pick = _uniform(count, 0, 1, generator)[:, None, None, None]
    pictures = torch.where(pick < 0.35, blurred, pictures)

    gain = 1 + 0.2 * torch.randn(count, 3, 1, 1, generator=generator)
    pictures = 1 - (1 - pictures) * gain
    grey = pictures.mean(1, keepdim=True).expand_as(pictures)
    pick = _uniform(count, 0, 1, generator)[:, None, None, None]
    pictures = torch.where(pick < 0.15, grey, pictures)

    strength = 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures + strength * noise).clamp(-1, 1)


def hidden(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A white square of a quarter of the side covers a random place of every third picture."""
    pictures = pictures.clone()
    side = pictures.shape[-1]
    hole = side // 4
    for at in torch.nonzero(_uniform(len(pictures), 0, 1, generator) < 1 / 3).flatten().tolist():
        top, left = torch.randint(0, side - hole, (2,), generator=generator).tolist()
        pictures[at, :, top : top + hole, left : left + hole] = 1
    return pictures
