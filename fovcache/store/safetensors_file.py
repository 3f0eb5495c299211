"""Writing and reading safetensors files byte for byte.

The safetensors library reads what is written here (a test holds us to that). It is not used to write,
because its header order is its own affair and a shard's bytes must be a function of its content; nor to
read, because it copies: `readinto` into the destination is several times faster.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DamageError
from ..keys.digest import canonical_json

ALIGNMENT = 64
"""The data starts at a multiple of this in the file, so that a mapped tensor is aligned."""

MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies in a file."""

    dtype: str
    """As safetensors names it: BF16, F16, F32, I64, U8, …"""
    shape: tuple[int, ...]
    """The tensor's dimensions."""
    offset: int
    """The first byte, counted from the start of the file."""
    size_bytes: int
    """The length of the data."""


ITEM_BYTES = {"U8": 1, "I32": 4, "I64": 8, "BF16": 2, "F16": 2, "F32": 4}


def file_parts(
    tensors: Mapping[str, tuple[str, tuple[int, ...], memoryview]], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """The parts of a safetensors file holding `{name: (dtype, shape, bytes)}`, in sorted name order.

    The header is padded so that the data starts aligned; the format allows no gaps between tensors.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + data.nbytes],
        }
        position += data.nbytes
    encoded = canonical_json(header)
    encoded += b" " * (-(_LENGTH_BYTES + len(encoded)) % ALIGNMENT)
    parts: list[bytes | memoryview] = [len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded]
    return parts + [tensors[name][2] for name in sorted(tensors)]


def array_bytes(array: np.ndarray) -> memoryview:
    """A numpy array's bytes; shared, not copied, when it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def parse_header(
    data: bytes, file_size: int, name: str, item_bytes: Mapping[str, int] = ITEM_BYTES
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """`({tensor: info}, metadata)` from a file's first bytes (at least its whole header).

    `item_bytes` are the dtypes that may occur, with the bytes of a number: by default those of our own files.
    Raises DamageError when the header is not one, or does not describe exactly `file_size` bytes.
    """
    try:
        length = header_length(data, name)
        header = json.loads(data[_LENGTH_BYTES:length])
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        tensors = {str(key): _tensor_info(value, length, item_bytes) for key, value in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamageError(f"{name} is damaged: its header cannot be read ({error})") from error
    end = length
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.size_bytes)):
        if info.offset != end:
            raise DamageError(f"{name} is damaged: its tensors overlap or leave a gap")
        end += info.size_bytes
    if end != file_size:
        raise DamageError(f"{name} is damaged: it has {file_size} bytes, its header describes {end}")
    return tensors, metadata


def header_length(data: bytes, name: str) -> int:
    """The bytes before the first tensor, from the first 8 bytes of a file. Raises DamageError."""
    if len(data) < _LENGTH_BYTES:
        raise DamageError(f"{name} is damaged: it ends inside its header")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise DamageError(f"{name} is damaged: its header would have {length} bytes")
    return _LENGTH_BYTES + length


def _tensor_info(value: Mapping[str, Any], data_start: int, item_bytes: Mapping[str, int]) -> TensorInfo:
    begin, end = map(int, value["data_offsets"])
    shape = tuple(map(int, value["shape"]))
    size = item_bytes[value["dtype"]] * math.prod(shape)
    if begin < 0 or min(shape, default=0) < 0 or end - begin != size:
        raise ValueError(f"a tensor of {size} bytes spans {end - begin}")
    return TensorInfo(dtype=value["dtype"], shape=shape, offset=data_start + begin, size_bytes=size)


def read_header(read: Any, name: str, file_size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """`parse_header` of a stored file; `read(offset, size)` returns bytes."""
    first = read(0, min(file_size, 4096))
    length = header_length(first, name)
    if length > file_size:
        raise DamageError(f"{name} is damaged: it has {file_size} bytes, its header alone {length}")
    if length > len(first):
        first += read(len(first), length - len(first))
    return parse_header(first[:length], file_size, name)


def total_size(parts: Iterable[bytes | memoryview]) -> int:
    """The length in bytes of a file's parts."""
    return sum(memoryview(part).nbytes for part in parts)
