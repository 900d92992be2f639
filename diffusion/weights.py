"""The safetensors files of one part of a model: found, read and written tensor by tensor.

A UNet of SDXL has ten gigabytes; nothing here holds more than one tensor of it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.errors import UntrustedModel

VARIANTS = (None, "fp16")
"""Full precision first; many folders hold half precision only, under a name that says so."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class WeightFiles:
    variant: str | None
    paths: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def find_weights(folder: Path) -> WeightFiles:
    """Those of a part such as `unet/`: one file or shards, of full or half precision.

    Raises:
        UntrustedModel: there are none, or a shard is missing.
    """
    stem = "model" if folder.name.startswith("text_encoder") else "diffusion_pytorch_model"
    for variant in VARIANTS:
        middle = f".{variant}" if variant else ""
        if (whole := folder / f"{stem}{middle}.safetensors").is_file():
            return WeightFiles(variant, (whole,))
        index = folder / f"{stem}.safetensors.index{middle}.json"
        if index.is_file():
            return WeightFiles(variant, _shards(index))
    raise UntrustedModel(
        f"{folder.parent.name}: {folder.name}/{stem}.safetensors is missing; weights are loaded "
        "from safetensors files only, since other formats can run code"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        paths = tuple(index.parent / name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UntrustedModel(f"{index.name} is no index of shards") from error
    for path in paths:
        if path.parent != index.parent or not path.is_file():
            raise UntrustedModel(f"{index.parent.name}/{path.name} is missing")
    return paths


class WeightReader:
    """Every tensor of some files by name, read when it is asked for."""

    def __init__(self, files: dict[str, Any]) -> None:
        self._files = files

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        found = self._files[name].get_slice(name).get_dtype()
        if found not in DTYPES:
            raise UntrustedModel(f"{name} holds {found}, which is no weight of a UNet or VAE")
        return DTYPES[found]

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


@contextmanager
def open_weights(*paths: Path) -> Iterator[WeightReader]:
    """Raises UntrustedModel: a file is not safetensors."""
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in paths:
            try:
                file = stack.enter_context(safe_open(str(path), framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UntrustedModel(f"{path.name} is no safetensors file: {error}") from error
            files |= dict.fromkeys(file.keys(), file)
        yield WeightReader(files)


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; `make` is called when its turn comes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def write_weights(path: Path, entries: dict[str, Entry], metadata: dict[str, str]) -> None:
    """Write a safetensors file, one tensor in memory at a time.

    The format is eight bytes with the length of a JSON header, the header, and the bytes.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, entry in entries.items():
        start = end
        end += entry.dtype.itemsize * torch.Size(entry.shape).numel()
        header[name] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for name, entry in entries.items():
            tensor = entry.make()
            assert (tensor.dtype, tuple(tensor.shape)) == (entry.dtype, entry.shape), name
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
