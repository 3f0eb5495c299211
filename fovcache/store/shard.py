"""Shards: immutable safetensors files that hold one block's rows of several features.

Tensors: one `[n, …]` per feature, named by the feature's digest, in its storage dtype, and `keys`, uint8
`[n, 32]`, the samples' keys in row order. The header's metadata holds the recipe, the block and a BLAKE3
per tensor; the file is named by the BLAKE3 of all its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3

from ..errors import DamageError
from ..keys.digest import DIGEST_BYTES, bytes_digest, canonical_json
from ..keys.recipe import SCHEMA
from .layout import shard_name, stem
from .safetensors_file import TensorInfo, array_bytes, file_parts, read_header
from .storage import Storage

KEYS = "keys"
_DTYPE_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int32: "I32"}
TORCH_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A published shard, as its block's manifest records it."""

    digest: str
    """BLAKE3 of the file's bytes."""
    size_bytes: int
    """The file's length."""
    num_rows: int
    """Samples in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHeader:
    """What a shard's header says."""

    recipe: str
    """The recipe's digest."""
    block: str
    """The block's id."""
    tensors: Mapping[str, TensorInfo]
    """Where each tensor lies; `keys` and one a feature."""
    checksums: Mapping[str, str]
    """BLAKE3 of each tensor's bytes."""

    @property
    def features(self) -> tuple[str, ...]:
        """The digests of the features in it, sorted."""
        return tuple(sorted(name for name in self.tensors if name != KEYS))


def keys_array(keys: Sequence[str]) -> np.ndarray:
    """Hexadecimal keys as uint8 [n, 32]."""
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(len(keys), DIGEST_BYTES)


def keys_hex(keys: np.ndarray) -> list[str]:
    """uint8 [n, 32] as hexadecimal keys."""
    text = np.ascontiguousarray(keys).tobytes().hex()
    return [text[start : start + 2 * DIGEST_BYTES] for start in range(0, len(text), 2 * DIGEST_BYTES)]


def write_shard(
    storage: Storage, *, recipe: str, block: str, keys: Sequence[str], features: Mapping[str, torch.Tensor]
) -> Shard:
    """Publish the rows of `features` ({feature digest: contiguous CPU tensor [n, …]}) for `keys`, in order."""
    tensors: dict[str, tuple[str, tuple[int, ...], memoryview]] = {
        KEYS: ("U8", (len(keys), DIGEST_BYTES), array_bytes(keys_array(keys)))
    }
    for digest, rows in features.items():
        assert rows.is_contiguous()
        assert len(rows) == len(keys)
        tensors[digest] = (_DTYPE_NAMES[rows.dtype], tuple(rows.shape), tensor_bytes(rows))
    checksums = {name: blake3(data).hexdigest() for name, (_, _, data) in tensors.items()}
    metadata = {
        "blake3": canonical_json(checksums).decode(),
        "block": block,
        "format": "fovcache",
        "recipe": recipe,
        "schema": str(SCHEMA),
    }
    parts = file_parts(tensors, metadata)
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    digest = hasher.hexdigest()
    name = shard_name(recipe, digest)
    size = sum(memoryview(part).nbytes for part in parts)
    storage.put(name, parts)
    return Shard(digest=digest, size_bytes=size, num_rows=len(keys))


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """A contiguous CPU tensor's bytes, shared, not copied."""
    return array_bytes(tensor.reshape(-1).view(torch.uint8).numpy())


def read_shard_header(storage: Storage, name: str) -> ShardHeader:
    """A shard's header. Raises DamageError when it is damaged, FileNotFoundError when it is gone."""

    def read(offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        storage.read_into(name, offset, memoryview(buffer))
        return bytes(buffer)

    try:
        tensors, metadata = read_header(read, name, storage.size(name))
        checksums = json.loads(metadata["blake3"])
        header = ShardHeader(recipe=metadata["recipe"], block=metadata["block"], tensors=tensors, checksums=checksums)
    except (KeyError, ValueError, EOFError) as error:
        raise DamageError(f"{name} is damaged: {error}") from error
    rows = {info.shape[0] for info in tensors.values() if info.shape}
    if KEYS not in tensors or len(rows) != 1:
        raise DamageError(f"{name} is damaged: its tensors differ in their number of rows")
    return header


def read_shard_keys(storage: Storage, name: str, header: ShardHeader | None = None) -> np.ndarray:
    """uint8 [n, 32], the keys of a shard's rows."""
    info = (header or read_shard_header(storage, name)).tensors[KEYS]
    keys = np.empty(info.shape, np.uint8)
    storage.read_into(name, info.offset, array_bytes(keys))
    return keys


def read_checked_keys(storage: Storage, name: str, header: ShardHeader) -> np.ndarray:
    """As `read_shard_keys`. Raises DamageError also when they are not the keys that were written."""
    keys = read_shard_keys(storage, name, header)
    if bytes_digest(array_bytes(keys)) != header.checksums.get(KEYS):
        raise _damaged_tensor(name, KEYS)
    return keys


def read_checked_rows(
    storage: Storage, name: str, header: ShardHeader, feature: str, rows_per_part: int
) -> Iterator[torch.Tensor]:
    """All rows of a feature in a shard, in parts: CPU tensors [m, …].

    Raises DamageError, at the end, when they are not the rows that were written: wait for it with what follows of them.
    """
    info = header.tensors[feature]
    num_rows, *shape = info.shape
    row_bytes = info.size_bytes // max(1, num_rows)
    hasher = blake3()
    for start in range(0, num_rows, rows_per_part):
        count = min(rows_per_part, num_rows - start)
        part = torch.empty((count, *shape), dtype=TORCH_DTYPES[info.dtype])
        data = tensor_bytes(part)
        try:
            storage.read_into(name, info.offset + start * row_bytes, data)
        except EOFError as error:
            raise DamageError(f"{name} is damaged: {error}; run `fovcache repair`") from error
        hasher.update(data)
        yield part
    if hasher.hexdigest() != header.checksums.get(feature):
        raise _damaged_tensor(name, feature)


def _damaged_tensor(name: str, tensor: str) -> DamageError:
    return DamageError(f"{name} is damaged: its bytes changed (tensor {tensor[:12]}); run `fovcache repair`")


def shard_damage(storage: Storage, name: str) -> str | None:
    """What is wrong with a shard's bytes, or None: they must be those that its name is the digest of."""
    hasher = blake3()
    try:
        size = storage.size(name)
        buffer = memoryview(bytearray(min(size, 4 << 20)))
        for offset in range(0, size, len(buffer) or 1):
            part = buffer[: min(len(buffer), size - offset)]
            storage.read_into(name, offset, part)
            hasher.update(part)
    except FileNotFoundError:
        return "it is missing"
    except (OSError, EOFError) as error:
        return f"it cannot be read: {error}"
    if hasher.hexdigest() == stem(name):
        return None
    return f"its bytes changed ({_damaged_part(storage, name)})"


def _damaged_part(storage: Storage, name: str) -> str:
    """Which tensor is damaged, as far as its header can still tell."""
    try:
        header = read_shard_header(storage, name)
        for tensor, info in header.tensors.items():
            data = bytearray(info.size_bytes)
            storage.read_into(name, info.offset, memoryview(data))
            if blake3(data).hexdigest() != header.checksums.get(tensor):
                return f"tensor {tensor[:12]}"
    except (DamageError, EOFError):
        pass
    return "header"
