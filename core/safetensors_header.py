"""The header of a safetensors file, read from front to back and believed in nothing.

    8 bytes     length of the header, little endian
    header      JSON: name -> dtype, shape, data_offsets [begin, end) after the header
    data        every tensor once, without gaps

A pickle, an archive, a truncated or a padded file is no such thing, whatever its name.
Source: the format's description in the README of huggingface/safetensors.
"""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from core.errors import UntrustedModel

MAX_HEADER_BYTES = 16 << 20
"""SDXL's UNet, with 1680 tensors, has a header of 0.2 MB."""
MAX_DIMENSIONS = 16
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class StoredTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Bytes after the header."""
    end: int


def read_header(file: Readable, size: int, what: str) -> tuple[StoredTensor, ...]:
    """The tensors of a file in the order of their bytes; afterwards `file` is at the first one.

    Args:
        size: of the whole file, in bytes.
        what: the file, as an error calls it.

    Raises:
        UntrustedModel: it is no safetensors file, or says of itself what cannot be.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):  # noqa: PLR2004  ("{}")
        raise UntrustedModel(
            f"{what} is no safetensors file, or truncated: it has {size} bytes, and its header "
            f"would have {length}; at most {MAX_HEADER_BYTES} are read"
        )
    try:
        document = json.loads(file.read(length), object_pairs_hook=_without_twins)
        document.pop("__metadata__", None)
        tensors = sorted(
            (_stored(name, told) for name, told in document.items()),
            key=lambda one: (one.begin, one.end),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UntrustedModel(f"{what} has no header of a safetensors file: {error}") from error
    ends = [0, *(one.end for one in tensors)]
    gap = any(one.begin != end for one, end in zip(tensors, ends, strict=False))
    if gap or ends[-1] != size - 8 - length:
        raise UntrustedModel(
            f"{what} is truncated or padded: its tensors do not fill its {size} bytes exactly"
        )
    return tuple(tensors)


def _stored(name: str, told: dict[str, Any]) -> StoredTensor:
    """Raises ValueError, KeyError, TypeError."""
    begin, end = told["data_offsets"]
    shape = tuple(told["shape"])
    numbers = (begin, end, *shape)
    if any(type(one) is not int or one < 0 for one in numbers) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{name} has the shape {shape} and the place {begin} to {end}")
    if math.prod(shape) * ITEM_BYTES[told["dtype"]] != end - begin:
        raise ValueError(f"{name} of {told['dtype']} {shape} is not {end - begin} bytes long")
    return StoredTensor(name, told["dtype"], shape, begin, end)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers could take two different ones of a pair of the same name."""
    names = sorted(name for name, _ in pairs)
    for one, other in pairwise(names):
        if one == other:
            raise ValueError(f"{one} is there twice")
    return dict(pairs)
