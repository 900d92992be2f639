"""Classifier-free guidance draws each picture twice; what both rows share is computed once.

The two rows of a guided picture differ in their text alone. Until the UNet first reads text, in
its first cross-attention, they hold the same numbers: the first convolution, the first residual
block and its self-attention need one of them. That is 4 % of a pass of the shipped model. SDXL's
pooled text is part of each residual block's input, so there is nothing to share.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D, DownBlock2D
from torch import Tensor, nn

_twins: ContextVar[bool] = ContextVar("twins", default=False)


@contextmanager
def twin_rows() -> Iterator[None]:
    """Within, the second half of a pass's rows is the first half again, with other texts."""
    with _told(twins=True):
        yield


@contextmanager
def no_twins() -> Iterator[None]:
    """Within, every row of a pass is computed: rows that were padded have other halves."""
    with _told(twins=False):
        yield


@contextmanager
def _told(*, twins: bool) -> Iterator[None]:
    token = _twins.set(twins)
    try:
        yield
    finally:
        _twins.reset(token)


def share_twins(unet: UNet2DConditionModel) -> None:
    """Let a UNet compute the halves of `twin_rows` once; its parameters and names stay.

    Asked again, it changes nothing: halves of halves would be other pictures.
    """
    for module in before_text(unet):
        if _first_half in module._forward_pre_hooks.values():  # noqa: SLF001  (no other name)
            continue
        module.register_forward_pre_hook(_first_half, with_kwargs=True)
        module.register_forward_hook(_twice)


def before_text(unet: UNet2DConditionModel) -> list[nn.Module]:
    """What costs time and reads the sample and its timestep alone, in the order it is run."""
    if unet.config.addition_embed_type is not None:
        return []
    found: list[nn.Module] = [unet.conv_in]
    for block in unet.down_blocks:
        if type(block) is DownBlock2D:
            found += [*block.resnets, *(block.downsamplers or ())]
            continue
        if type(block) is CrossAttnDownBlock2D:
            found.append(block.resnets[0])
            self_attention = block.attentions[0].transformer_blocks[0].attn1
            if not self_attention.is_cross_attention:
                found.append(self_attention)
        break
    return found


def _shares() -> bool:
    # A compiled graph is one of padded rows, whose halves are nobody's twins.
    return not torch.compiler.is_compiling() and _twins.get()


def _first_half(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if not _shares():
        return None
    return tuple(map(_half, args)), {name: _half(value) for name, value in kwargs.items()}


def _half(value: Any) -> Any:
    """(2 n, ...) -> (n, ...); what is no tensor is the same for all rows."""
    return value[: len(value) // 2] if isinstance(value, Tensor) else value


def _twice(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
    return torch.cat([output, output]) if _shares() else None
