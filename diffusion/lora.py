"""An erasure as a LoRA: low-rank factors beside the base's weights, in kohya's key layout.

A LoRA adds `up @ down` to a weight W. Stage 1 is W <- W T = W + W (T - I), and T - I = U S V^T
serves every layer: down = S^1/2 V^T is the same everywhere, up = W U S^1/2. Its rank is that of
T - I, so with all of it the LoRA is the erasure, but for the rounding of the file. What stage 2
changed, W' - W, has any rank; there the largest singular values are the best fit there is.

A1111, ComfyUI and diffusers read the file. A LoRA has no place for changed biases and norms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import ModelUnsupported
from diffusion.attention import reads_text
from diffusion.erasure import READS_POOLED, Erasure
from diffusion.originals.unet import original_module
from diffusion.weights import WeightReader

FLOAT32_DIGITS = 1e-6
"""Singular values below this share of the largest are rounding of the map, which is float32."""


@dataclass(frozen=True)
class Lora:
    tensors: Mapping[str, Tensor]
    rank: int
    """The largest of its layers."""
    error: float
    """||wanted - given|| / ||wanted|| over all changes of the UNet, Frobenius, file rounding and
    what a LoRA cannot hold included."""
    left_out: tuple[str, ...]
    """Changed parameters that a LoRA has no place for."""

    def save(self, path: Path) -> None:
        metadata = {"ss_network_module": "networks.lora", "ss_network_dim": str(self.rank)}
        save_file(dict(self.tensors), str(path), metadata=metadata)


def to_lora(
    weights: WeightReader,
    erasure: Erasure,
    config: Mapping[str, Any],
    *,
    family: str,
    rank: int | None = None,
    steered_rank: int = 64,
    dtype: torch.dtype = torch.float16,
) -> Lora:
    """The LoRA that turns the base UNet into the erased one.

    Args:
        weights: of the base's UNet.
        config: of the base's UNet.
        rank: at most this; None: all that the maps of the text have.
        steered_rank: at most this, too, for what stage 2 changed.

    Raises:
        ModelUnsupported: the erasure is for another UNet, or changes nothing.
    """
    erasure.check_fits({name: weights.shape(name) for name in weights.names})
    of_text = _factors_of_map(erasure.text_map, rank)
    of_pooled = _factors_of_map(erasure.pooled_map, rank)
    of_steered = min(steered_rank, rank or steered_rank)
    tensors: dict[str, Tensor] = {}
    left_out = []
    wanted = missed = 0.0
    largest = 0
    for name in weights.names:
        if not (name in erasure.tensors or _is_mapped(name, erasure)):
            continue
        base = weights.tensor(name).float()
        change = erasure.erased(name, base).double() - base.double()
        wanted += float(change.square().sum())
        if change.ndim != 2:  # noqa: PLR2004  (a matrix)
            left_out.append(name)
            missed += float(change.square().sum())
            continue
        if name in erasure.tensors:
            at_most = (rank or base.shape[1]) if reads_text(name) else of_steered
            up, down = _factors(change, at_most)
        elif name == READS_POOLED:
            assert of_pooled is not None
            up, down = _folded(base, of_pooled)
        else:
            assert of_text is not None
            up, down = _folded(base, of_text)
        up, down = up.to(dtype), down.to(dtype)
        if not bool(up.isfinite().all() and down.isfinite().all()):
            raise ModelUnsupported(f"the factors of {name} are too large for {dtype}")
        missed += float((change - up.double() @ down.double()).square().sum())
        largest = max(largest, len(down))
        module = _module(name.removesuffix(".weight"), config, family)
        tensors[f"{module}.lora_up.weight"] = up.contiguous()
        # A tensor of its own: safetensors refuses those that share memory.
        tensors[f"{module}.lora_down.weight"] = down.clone().contiguous()
        # kohya scales by alpha / rank.
        tensors[f"{module}.alpha"] = torch.tensor(float(len(down)))
    if not tensors:
        raise ModelUnsupported("this model changes nothing that a LoRA could hold")
    return Lora(tensors, largest, (missed / wanted) ** 0.5, tuple(left_out))


def _is_mapped(name: str, erasure: Erasure) -> bool:
    if reads_text(name):
        return erasure.text_map is not None
    return name == READS_POOLED and erasure.pooled_map is not None


def _factors_of_map(by: Tensor | None, rank: int | None) -> tuple[Tensor, Tensor] | None:
    """(d, r) and (r, d) whose product is T - I."""
    if by is None:
        return None
    change = by.double() - torch.eye(len(by), dtype=torch.float64)
    return _factors(change, rank or len(change))


def _factors(change: Tensor, at_most: int) -> tuple[Tensor, Tensor]:
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    rank = max(1, min(at_most, int((values > FLOAT32_DIGITS * values[0]).sum())))
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _folded(weight: Tensor, factors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """W U and V, with columns of zeros for inputs that the map does not reach."""
    left, right = factors
    up = weight[:, : len(left)].double() @ left
    rest = right.new_zeros(len(right), weight.shape[1] - right.shape[1])
    return up, torch.cat([right, rest], dim=1)


def _module(name: str, config: Mapping[str, Any], family: str) -> str:
    """For SDXL, kohya's trainers and A1111 use the original names; before, those of diffusers."""
    named = original_module(name, config) if family == "sdxl" else name
    return "lora_unet_" + named.replace(".", "_")
