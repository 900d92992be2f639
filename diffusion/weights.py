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

from core.checked_stream import Check
from core.errors import UntrustedModel
from core.model_files import ModelFiles
from core.safetensors_header import read_header
from core.weight_names import weight_names

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
WHOLE_NUMBERS = {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}
"""What else old checkpoints hold: numbers of positions, masks."""


@dataclass(frozen=True)
class WeightFiles:
    paths: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def find_weights(folder: Path) -> WeightFiles:
    """Those of a part such as `unet/`: one file or shards, of full or half precision.

    Raises:
        UntrustedModel: there are none, or a shard is missing.
    """
    names = weight_names(ModelFiles(folder.parent, None), folder.name)
    return WeightFiles(tuple(folder.parent / name for name in names))


def read_tensors(
    files: ModelFiles,
    name: str,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    later: list[Check] | None = None,
) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, read once and checked; nothing refers to the file.

    Numbers with a point become `dtype`. Where that is another than the file's, no more than
    `core.late_digest.AHEAD_BYTES` and one tensor are in memory twice, those that wait to be
    digested; with `later`, all of them.

    Args:
        later: where the check of tensors that stay on the CPU is put, instead of being made.
            What was read is kept until then, and nobody is to have written to the tensors.

    Raises:
        UntrustedModel: the file is not as the manifest says, or not safetensors.
    """
    tensors = {}
    with files.stream(name) as stream:
        header = read_header(stream, stream.size, f"{files.folder.name}: {name}")
        if later is not None and torch.device(device).type == "cpu":
            stream.check_later(later)
        for stored in header:
            kind = (DTYPES | WHOLE_NUMBERS).get(stored.dtype)
            if kind is None:
                raise UntrustedModel(f"{name}: {stored.name} holds {stored.dtype}, no weight")
            tensor = torch.empty(stored.shape, dtype=kind)
            stream.fill(tensor.view(-1).view(torch.uint8).numpy().data)
            wanted = dtype if kind.is_floating_point else kind
            tensors[stored.name] = tensor.to(device, wanted)
    return tensors


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
