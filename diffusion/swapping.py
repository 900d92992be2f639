"""One UNet that wears one erasure at a time, and can always go back to its base, bit for bit.

Tensors are copied over the UNet's own, so nothing is loaded or allocated, and graphs that were
compiled or captured follow. Text maps are not worn: they act on the prompts, and requests with
different maps share a batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.errors import ModelUnsupported, WeightsDiffer
from diffusion.full_memory import within_memory


@dataclass(frozen=True, eq=False)
class Delta:
    """The tensors of a UNet that an erasure changed, ready to be copied onto it.

    They have its dtype and layout; in pinned memory if it is on a CUDA device.
    """

    tensors: Mapping[str, Tensor]
    sums: Mapping[str, Tensor]
    """Name -> () int64, see `checksum`."""

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


NOTHING = Delta({}, {})
"""The base itself."""


class SwappableUNet:
    """Belongs to the thread that owns the device, as the UNet does."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet = unet
        self._parameters = dict(unet.named_parameters())
        self._base: dict[str, Tensor] = {}
        self._base_sums: dict[str, Tensor] = {}
        self._worn: Delta | None = NOTHING

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(one.shape) for name, one in self._parameters.items()}

    @property
    def kept_bytes(self) -> int:
        """What the base's copies of tensors that erasures change take on the device."""
        return sum(one.nbytes for one in self._base.values())

    def to_keep_bytes(self, counts: Mapping[str, int]) -> int:
        """What copies take that are not made yet, of tensors of so many numbers."""
        size = self._unet.dtype.itemsize
        return sum(count * size for name, count in counts.items() if name not in self._base)

    def prepared(self, tensors: Mapping[str, Tensor]) -> Delta:
        """
        Raises:
            ModelUnsupported: the tensors belong to another UNet.
        """
        for name, tensor in tensors.items():
            if name not in self._parameters or self._parameters[name].shape != tensor.shape:
                raise ModelUnsupported(
                    f"this UNet has no parameter {name} of shape {tuple(tensor.shape)}"
                )
        pinned = self._unet.device.type == "cuda"
        held = {
            name: torch.empty_like(
                self._parameters[name], device="cpu", pin_memory=pinned, requires_grad=False
            ).copy_(tensor)
            for name, tensor in tensors.items()
        }
        return Delta(held, {name: checksum(tensor) for name, tensor in held.items()})

    def wear(self, delta: Delta) -> bool:
        """Make the UNet the base with the delta's tensors in it; `NOTHING` is the base itself.

        False when it is that already.

        Every tensor that was written is read again, and held against its checksum.

        Raises:
            WeightsDiffer: the device holds something else. All is written again by the next call.
            DeviceOutOfMemory: the same is true then.
        """
        if delta is self._worn:
            return False
        putting_on = partial(self._put_on, delta)
        return within_memory(putting_on, "the device has no room to swap weights in")

    def _put_on(self, delta: Delta) -> bool:
        self._keep(delta)
        last, self._worn = self._worn, None
        # What the last erasure changed and this one does not goes back to the base.
        changed = self._base if last is None else last.tensors
        back = [name for name in changed if name not in delta.tensors]
        sources = {name: self._base[name] for name in back} | dict(delta.tensors)
        sums = {name: self._base_sums[name] for name in back} | dict(delta.sums)
        if wrong := self._write(sources, sums):
            raise WeightsDiffer(
                f"{wrong[0]} and {len(wrong)} tensors in all are not on the device as they were "
                "read; its memory may be faulty"
            )
        self._worn = delta
        return True

    def _keep(self, delta: Delta) -> None:
        """The base's copy of a tensor is kept from the first time that some erasure changes it."""
        for name in delta.tensors:
            if name not in self._base:
                kept = self._parameters[name].detach().clone()
                self._base_sums[name] = checksum(kept).cpu()
                # Last: where memory ran out before, both are made again.
                self._base[name] = kept

    def _write(self, sources: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> list[str]:
        """Copy, and return the names of what is not there now."""
        if not sources:
            return []
        found = []
        with torch.no_grad():
            for name, tensor in sources.items():
                self._parameters[name].copy_(tensor, non_blocking=True)
                found.append(checksum(self._parameters[name]))
        expected = torch.stack([sums[name] for name in sources])
        same = torch.stack(found).cpu() == expected
        return [name for name, one in zip(sources, same.tolist(), strict=True) if not one]


def checksum(tensor: Tensor) -> Tensor:
    """() int64: the sum of a tensor's bytes as whole numbers, eight bytes at a time if it can be.

    The order in memory counts for nothing, but one changed bit does. It costs half of a copy on a
    CPU, where a SHA-256 would cost five.
    """
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    wide = torch.int64 if tensor.nbytes % 8 == 0 else torch.uint8
    return flat.view(wide).sum(dtype=torch.int64)
