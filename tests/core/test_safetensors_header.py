"""A file that is no safetensors file is found out by its header, and costs next to no memory."""

import contextlib
import io
import json
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from core.errors import UntrustedModel
from core.safetensors_header import MAX_HEADER_BYTES, read_header

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}
GOOD = save(TENSORS, metadata={"format": "pt"})


def read(data: bytes, size: int | None = None):
    return read_header(io.BytesIO(data), len(data) if size is None else size, "weights")


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def entry(**changes) -> bytes:
    told = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes
    return with_header(json.dumps({"a": told}).encode(), b"\0" * 4)


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return made.getvalue()


def torch_file() -> bytes:
    made = io.BytesIO()
    torch.save(TENSORS, made)
    return made.getvalue()


def test_every_tensor_is_found_where_it_is():
    data = io.BytesIO(GOOD)
    tensors = read_header(data, len(GOOD), "weights")
    start = data.tell()

    for one in tensors:
        wanted = TENSORS[one.name]
        assert one.shape == tuple(wanted.shape)
        found = GOOD[start + one.begin : start + one.end]
        assert torch.equal(torch.frombuffer(bytearray(found), dtype=wanted.dtype), wanted.view(-1))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x08", id="shorter than its length"),
        pytest.param(pickle.dumps({"a": [1.0] * 100}), id="pickle"),
        pytest.param(archive(), id="archive"),
        pytest.param(torch_file(), id="torch.save"),
        pytest.param(b"\x80\x02\x8a" + GOOD, id="pickle in front"),
        pytest.param(GOOD[:-1], id="truncated by a byte"),
        pytest.param(GOOD[:40], id="truncated in the header"),
        pytest.param(GOOD + b"\0", id="padded by a byte"),
        pytest.param(GOOD + archive(), id="archive behind"),
        pytest.param((1 << 62).to_bytes(8, "little") + GOOD[8:], id="header of four exabytes"),
        pytest.param(with_header(b"[" * 100_000), id="nested deeply"),
        pytest.param(with_header(b"[]"), id="header is a list"),
        pytest.param(with_header(b'{"a": 1}'), id="entry is a number"),
        pytest.param(with_header(b'{"a": {}}'), id="entry says nothing"),
        pytest.param(with_header(b"\xff\xfe{}"), id="header is no text"),
        pytest.param(entry(dtype="PICKLE"), id="unknown dtype"),
        pytest.param(entry(shape=[2]), id="longer than its bytes"),
        pytest.param(entry(shape=[-1]), id="negative shape"),
        pytest.param(entry(shape=[1.0]), id="fractional shape"),
        pytest.param(entry(shape=[True]), id="shape of truth values"),
        pytest.param(entry(shape=[1] * 100), id="a hundred dimensions"),
        pytest.param(entry(shape=[1 << 62]), id="more than there is memory"),
        pytest.param(entry(data_offsets=[4, 8]), id="begins behind a gap"),
        pytest.param(entry(data_offsets=[-4, 0]), id="begins before the data"),
        pytest.param(entry(data_offsets=[4, 0]), id="ends before it begins"),
        pytest.param(
            with_header(
                b'{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},'
                b' "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}',
                b"123",
            ),
            id="overlapping tensors",
        ),
        pytest.param(
            with_header(
                b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},'
                b' "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
                b"1",
            ),
            id="the same name twice",
        ),
    ],
)
def test_what_is_no_safetensors_file_is_refused(data):
    with pytest.raises(UntrustedModel, match="weights"):
        read(data)


def test_a_huge_header_is_not_read():
    class Counting(io.BytesIO):
        most = 0

        def read(self, size: int = -1, /) -> bytes:
            self.most = max(self.most, size)
            return super().read(size)

    data = (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * (MAX_HEADER_BYTES + 1)
    file = Counting(data)
    with pytest.raises(UntrustedModel, match="no safetensors file"):
        read_header(file, len(data), "weights")
    assert file.most == 8


@given(st.data())
def test_no_change_of_the_header_raises_anything_else(data):
    changed = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(GOOD) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UntrustedModel):
        read(bytes(changed))
