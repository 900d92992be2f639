"""The pictures that training sees, as tensors."""

from safetensors.torch import load_file
from torch import Tensor

from trainer.pretraining.folders import Folders

SIDE = 64


def load_pictures(folders: Folders) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (n, 3, 64, 64) uint8, concept numbers (n,) and style numbers (n,)."""
    columns = load_file(folders.pictures)
    return columns["pixels"], columns["concept"], columns["style"]


def to_model(pixels: Tensor) -> Tensor:
    """uint8 pixels as the networks take them, [-1, 1]."""
    return pixels.float() / 127.5 - 1
