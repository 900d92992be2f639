"""What an erased model is, compared with its base: a map of text space, and changed tensors.

Every key and value projection W of cross-attention reads the same text embeddings e, without
bias. So W e with e replaced by T e is (W T) e: mapping the prompts and folding T into the
weights (`bake`) are the same model. A worker maps prompts, and all such models share the base
weights and therefore a batch; a folder for other programs has T baked in.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from core.errors import ModelUnsupported, UntrustedModel
from diffusion.attention import text_projections

FILENAME = "erasure.safetensors"
FORMAT = "trce-erasure-1"
TEXT_MAP = "text_map"
CHANGED = "unet."


@dataclass(frozen=True)
class Erasure:
    text_map: Tensor | None = None
    """T, (d, d) float32, for column vectors: e becomes T e. None: the identity."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Changed UNet parameters by name, before T is folded in."""

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write a safetensors file; `metadata` is for people and is not read back.

        It is stored under one key: safetensors writes several in an order that changes.
        """
        stored = {f"{CHANGED}{name}": tensor for name, tensor in self.tensors.items()}
        if self.text_map is not None:
            stored[TEXT_MAP] = self.text_map.float()
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in stored.items()}
        save_file(contiguous, str(path), metadata={FORMAT: json.dumps(metadata or {})})

    @classmethod
    def load(cls, path: Path) -> "Erasure":
        """Raises UntrustedModel: not such a file, or its contents cannot be right."""
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise UntrustedModel(f"{path.name} cannot be read: {error}") from error

    @classmethod
    def parse(cls, data: bytes) -> "Erasure":
        """What a file of this format holds, independent of the file from here on.

        Raises:
            UntrustedModel: not such a file, or its contents cannot be right.
        """
        text_map, tensors = None, {}
        if FORMAT not in _metadata(data):
            raise UntrustedModel(f"{FILENAME} is not in the format {FORMAT}")
        try:
            stored = load(data)
        except SafetensorError as error:
            raise UntrustedModel(f"{FILENAME} cannot be read as safetensors: {error}") from error
        for key, tensor in stored.items():
            if not bool(tensor.isfinite().all()):
                raise UntrustedModel(f"{FILENAME}: {key} holds numbers that are not finite")
            if key == TEXT_MAP:
                text_map = tensor
            elif key.startswith(CHANGED):
                tensors[key.removeprefix(CHANGED)] = tensor
            else:
                raise UntrustedModel(f"{FILENAME}: {key} is nothing this code knows")
        if text_map is not None and (text_map.ndim != 2 or len(set(text_map.shape)) > 1):  # noqa: PLR2004
            raise UntrustedModel(f"{FILENAME}: the text map is not square")
        return cls(text_map=text_map, tensors=tensors)

    def map_prompts(self, embeddings: Tensor) -> Tensor:
        """e -> T e for every token: (..., d) -> (..., d), in the dtype it came in."""
        if self.text_map is None:
            return embeddings
        text_map = self.text_map.to(embeddings.device)
        return (embeddings.float() @ text_map.T).to(embeddings.dtype)

    def bake(self, unet: UNet2DConditionModel) -> None:
        """Turn the base `unet` into the erased one, in place: changed tensors, then W <- W T.

        The product is computed in float64 and keeps each weight's dtype and device.

        Raises:
            ModelUnsupported: the erasure was made for another UNet.
        """
        write_tensors(unet, self.tensors)
        if self.text_map is None:
            return
        projections = text_projections(unet)
        width = next(iter(projections.values())).in_features
        if self.text_map.shape[0] != width:
            raise ModelUnsupported(
                f"the text map is for embeddings of width {self.text_map.shape[0]}, "
                f"this UNet reads {width}"
            )
        for projection in projections.values():
            weight = projection.weight
            with torch.no_grad():
                weight.copy_(weight.double() @ self.text_map.double().to(weight.device))


def save_unet(
    unet: UNet2DConditionModel,
    erasure: Erasure,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write `unet` with `erasure` baked in as a diffusers folder; `unet` itself stays as it is.

    Raises:
        ModelUnsupported: a weight of the erased UNet does not fit into `dtype`.
    """
    erased = copy.deepcopy(unet).cpu()
    erasure.bake(erased)
    # diffusers' own `to` warns of parts to be kept in float32, of which this UNet has none.
    nn.Module.to(erased, dtype)
    for name, parameter in erased.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ModelUnsupported(f"{name} of the erased UNet is too large for {dtype}")
    erased.save_pretrained(str(folder), safe_serialization=True)


def write_tensors(unet: UNet2DConditionModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` over the UNet's parameters of those names, in place.

    Storage stays where it is, so compiled or captured graphs follow.

    Raises:
        ModelUnsupported: a name or a shape is not the UNet's; then nothing was written.
    """
    parameters = dict(unet.named_parameters())
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise ModelUnsupported(
                f"this UNet has no parameter {name} of shape {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor, non_blocking=True)


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes with the header's length, the header, data."""
    size = int.from_bytes(data[:8], "little")
    try:
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    except (ValueError, KeyError, TypeError) as error:
        raise UntrustedModel(f"{FILENAME} cannot be read as safetensors") from error
    return dict(metadata)
