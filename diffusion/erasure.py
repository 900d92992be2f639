"""What an erased model is, compared with its base: a map of text space, and changed tensors.

Every key and value projection W of cross-attention reads the same text embeddings e, without
bias. So W e with e replaced by T e is (W T) e: mapping the prompts and folding T into the
weights (`bake`) are the same model. A worker maps prompts, and all such models share the base
weights and therefore a batch; a folder for other programs has T baked in.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from core.errors import ModelUnsupported, UntrustedModel
from diffusion.attention import reads_text, text_projections
from diffusion.prompts import EncodedPrompt
from diffusion.weights import Entry, WeightReader, find_weights, open_weights, write_weights

FILENAME = "erasure.safetensors"
FORMAT = "trce-erasure-1"
TEXT_MAP = "text_map"
POOLED_MAP = "pooled_map"
READS_POOLED = "add_embedding.linear_1.weight"
CHANGED = "unet."


@dataclass(frozen=True)
class Erasure:
    text_map: Tensor | None = None
    """T, (d, d) float32, for column vectors: e becomes T e. None: the identity."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Changed UNet parameters by name, before T is folded in."""
    pooled_map: Tensor | None = None
    """The same for pooled embeddings, (p, p) float32; SDXL alone has them."""

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write a safetensors file; `metadata` is for people and is not read back.

        It is stored under one key: safetensors writes several in an order that changes.
        """
        stored = {f"{CHANGED}{name}": tensor for name, tensor in self.tensors.items()}
        for name, one in ((TEXT_MAP, self.text_map), (POOLED_MAP, self.pooled_map)):
            if one is not None:
                stored[name] = one.float()
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
        maps: dict[str, Tensor] = {}
        tensors: dict[str, Tensor] = {}
        if FORMAT not in _metadata(data):
            raise UntrustedModel(f"{FILENAME} is not in the format {FORMAT}")
        try:
            stored = load(data)
        except SafetensorError as error:
            raise UntrustedModel(f"{FILENAME} cannot be read as safetensors: {error}") from error
        for key, tensor in stored.items():
            if not bool(tensor.isfinite().all()):
                raise UntrustedModel(f"{FILENAME}: {key} holds numbers that are not finite")
            if key in {TEXT_MAP, POOLED_MAP}:
                maps[key] = tensor
            elif key.startswith(CHANGED):
                tensors[key.removeprefix(CHANGED)] = tensor
            else:
                raise UntrustedModel(f"{FILENAME}: {key} is nothing this code knows")
        for key, one in maps.items():
            if one.ndim != 2 or len(set(one.shape)) > 1:  # noqa: PLR2004
                raise UntrustedModel(f"{FILENAME}: the {key.replace('_', ' ')} is not square")
        return cls(maps.get(TEXT_MAP), tensors, maps.get(POOLED_MAP))

    def maps_on(self, device: torch.device | str) -> "Erasure":
        """Its maps alone, on the device whose prompts they will map."""
        text, pooled = (
            None if one is None else one.to(device) for one in (self.text_map, self.pooled_map)
        )
        return Erasure(text_map=text, pooled_map=pooled)

    def map_prompts(self, embeddings: Tensor) -> Tensor:
        """e -> T e for every token: (..., d) -> (..., d), in the dtype it came in."""
        return _mapped(embeddings, self.text_map)

    def map_pooled(self, pooled: Tensor) -> Tensor:
        """The same for pooled embeddings: (..., p) -> (..., p)."""
        return _mapped(pooled, self.pooled_map)

    def map_prompt(self, prompt: EncodedPrompt) -> EncodedPrompt:
        """A prompt as the erased model reads it, pooled embedding included."""
        pooled = None if prompt.pooled is None else self.map_pooled(prompt.pooled)
        return replace(prompt, embedding=self.map_prompts(prompt.embedding), pooled=pooled)

    def erased(self, name: str, weight: Tensor) -> Tensor:
        """The erased model's value of the base's UNet parameter `name`, in its dtype.

        The products are computed in float64.
        """
        if name in self.tensors:
            weight = self.tensors[name].to(weight)
        if self.text_map is not None and reads_text(name):
            return (weight.double() @ self.text_map.double().to(weight.device)).to(weight.dtype)
        if self.pooled_map is not None and name == READS_POOLED:
            pooled = self.pooled_map.double().to(weight.device)
            # Its input is the pooled text, followed by what encodes the size.
            text, size = weight.split([len(pooled), weight.shape[1] - len(pooled)], dim=1)
            return torch.cat([(text.double() @ pooled).to(weight.dtype), size], dim=1)
        return weight

    def changes(self, name: str) -> bool:
        """Whether the erased model's UNet parameter `name` is another than its base's."""
        if self.pooled_map is not None and name == READS_POOLED:
            return True
        return name in self.tensors or (self.text_map is not None and reads_text(name))

    def bake(self, unet: UNet2DConditionModel) -> None:
        """Turn the base `unet` into the erased one, in place: changed tensors, then W <- W T.

        Raises:
            ModelUnsupported: the erasure was made for another UNet.
        """
        text_projections(unet)
        self.check_fits({name: tuple(one.shape) for name, one in unet.named_parameters()})
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if self.changes(name):
                    parameter.copy_(self.erased(name, parameter.detach()))

    def check_fits(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ModelUnsupported: the erasure was made for another UNet than one of `shapes`."""
        for name, tensor in self.tensors.items():
            if shapes.get(name) != tuple(tensor.shape):
                raise ModelUnsupported(
                    f"this UNet has no parameter {name} of shape {tuple(tensor.shape)}"
                )
        width = next((shape[1] for name, shape in shapes.items() if reads_text(name)), None)
        if self.text_map is not None and width != len(self.text_map):
            raise ModelUnsupported(
                f"the text map is for embeddings of width {len(self.text_map)}, "
                f"this UNet reads {width or 'no text'}"
            )
        pooled = shapes.get(READS_POOLED, (0, 0))[1]
        if self.pooled_map is not None and pooled < len(self.pooled_map):
            raise ModelUnsupported("the erasure maps pooled text, which this UNet does not read")


def write_unet(
    base: Path, erasure: Erasure, folder: Path, *, dtype: torch.dtype = torch.float16
) -> None:
    """Write the UNet in the folder `base` with `erasure` baked in as a diffusers folder.

    Nothing but one tensor at a time is in memory.

    Raises:
        ModelUnsupported: it was made for another UNet, or a weight does not fit into `dtype`.
        UntrustedModel: the base's weights cannot be read.
    """
    folder.mkdir()
    shutil.copyfile(base / "config.json", folder / "config.json")
    with open_weights(*find_weights(base).paths) as weights:
        entries = erased_entries(weights, erasure, dtype)
        write_weights(folder / "diffusion_pytorch_model.safetensors", entries, {"format": "pt"})


def erased_entries(
    weights: WeightReader, erasure: Erasure, dtype: torch.dtype
) -> dict[str, Entry]:
    """Every parameter of the erased UNet, to be written in `dtype`.

    Raises:
        ModelUnsupported
    """
    shapes = {name: weights.shape(name) for name in weights.names}
    erasure.check_fits(shapes)

    def made(name: str) -> Tensor:
        weight = weights.tensor(name)
        erased = erasure.erased(name, weight.float()).to(dtype)
        if not bool(erased.isfinite().all()):
            raise ModelUnsupported(
                f"{name} of the erased UNet is not finite, or too large for {dtype}"
            )
        return erased

    return {name: Entry(dtype, shapes[name], partial(made, name)) for name in weights.names}


def _mapped(embeddings: Tensor, by: Tensor | None) -> Tensor:
    if by is None:
        return embeddings
    return (embeddings.float() @ by.to(embeddings.device).T).to(embeddings.dtype)


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
