"""Exporting a feature set to a file that other tools read, with where it came from."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..derived.derivation import input_of
from ..errors import EnvironmentFailure, UsageError, environment_failure
from ..keys.digest import canonical_json
from ..loaders.feature_set import FeatureSet
from ..store.documents import read_keyed
from ..store.layout import feature_name, recipe_name
from ..store.safetensors_file import array_bytes, file_parts
from ..store.shard import tensor_bytes
from ..store.storage import Storage
from ..store.strings import pack_strings

_CHUNK_BYTES = 64 << 20
_SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".safetensors": "safetensors"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was exported."""

    path: str
    """The file."""
    rows: int
    """Samples in it."""
    shape: tuple[int, ...]
    """Of the tensor `x`."""
    dtype: str
    """Of the tensor `x` in the file; HDF5 has no bfloat16, so such rows are widened to float32 there."""
    stored_dtype: str
    """Of the rows in the cache."""
    size_bytes: int
    """The file's length."""

    @property
    def was_widened(self) -> bool:
        """Whether the file's type is wider than the cache's."""
        return self.dtype == "float32" and self.stored_dtype != "fp32"

    @property
    def exit_status(self) -> int:
        """0."""
        return 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)


def export(storage: Storage, features: FeatureSet, path: Path) -> ExportReport:
    """Write `x`, `y`, keys and uris of a feature set to an `.h5` or `.safetensors` file, whole or not at all.

    Raises UsageError for another ending or a file that exists, EnvironmentFailure when it cannot be written.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"export to {path}: expected a file ending in {', '.join(_SUFFIXES)}")
    if path.exists():
        raise UsageError(f"export to {path}: the file exists; choose another name or remove it")
    rows = _rows(features)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write = _write_hdf5 if kind == "hdf5" else _write_safetensors
        dtype = write(features, rows, temporary, _provenance(storage, features))
        temporary.replace(path)
    except EnvironmentFailure:
        raise
    except OSError as error:
        raise environment_failure(error, f"write {path}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return ExportReport(
        path=str(path),
        rows=len(features),
        shape=rows.shape,
        dtype=dtype,
        stored_dtype=features.feature.dtype,
        size_bytes=path.stat().st_size,
    )


def _provenance(storage: Storage, features: FeatureSet) -> dict[str, str]:
    recipe = read_keyed(storage, recipe_name(features.feature.recipe), features.feature.recipe)
    derived_from: dict[str, str] = {}
    if (digest := input_of(recipe)) is not None:
        source = read_keyed(storage, feature_name(digest), digest)
        derived_from = {
            "input_feature": canonical_json(source).decode(),
            "input_recipe": canonical_json(
                read_keyed(storage, recipe_name(source["recipe"]), source["recipe"])
            ).decode(),
        }
    return {
        "fovcache": __version__,
        "recipe": canonical_json(recipe).decode(),
        **derived_from,
        "feature": canonical_json(features.feature.document).decode(),
        "feature_digest": features.feature.digest,
        "classes": json.dumps(features.classes),
    }


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The tensor `x`, in parts."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: Iterable[tuple[int, torch.Tensor]]


def _rows(features: FeatureSet) -> _Rows:
    """As they are stored; token ids to the longest sample's, with -1 after each one's end."""
    if features.feature.is_integer:
        ids = features.padded().to(features.dtype)
        return _Rows(shape=tuple(ids.shape), dtype=ids.dtype, chunks=[(0, ids)])
    return _Rows(shape=features.shape, dtype=features.dtype, chunks=_chunks(features))


def _chunks(features: FeatureSet) -> Iterator[tuple[int, torch.Tensor]]:
    """`(first row, rows)` in order, about _CHUNK_BYTES at a time."""
    rows_per_chunk = max(1, _CHUNK_BYTES // max(1, features.rows.row_bytes))
    for start in range(0, len(features), rows_per_chunk):
        count = min(rows_per_chunk, len(features) - start)
        chunk = torch.empty((count, *features.row_shape), dtype=features.dtype)
        features.rows.read_all(chunk, start)
        yield start, chunk


def _write_hdf5(features: FeatureSet, rows: _Rows, path: Path, provenance: dict[str, str]) -> str:
    import h5py

    wide = torch.float32 if rows.dtype == torch.bfloat16 else rows.dtype
    dtype = str(wide).removeprefix("torch.")
    with _FileForHdf5(path, "x+") as raw, h5py.File(raw, "w") as file:
        file.attrs.update({**provenance, "stored_dtype": features.feature.dtype})
        x = file.create_dataset("x", shape=rows.shape, dtype=dtype)
        for start, chunk in rows.chunks:
            x[start : start + len(chunk)] = chunk.to(wide).numpy()
            raw.check()
        if features.labels is not None:
            file["y"] = features.labels.numpy()
        file["key"] = features.key_array
        file.create_dataset("uri", data=features.uris, dtype=h5py.string_dtype())
        file.close()
        raw.check()
        os.fsync(raw.fileno())
    return dtype


class _FileForHdf5(io.FileIO):
    """HDF5 cannot close a file that can no longer be written: a write that fails is kept here, and told by `check`."""

    _failure: OSError | None = None

    def check(self) -> None:
        """Raise what failed."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self._failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0


def _write_safetensors(features: FeatureSet, rows: _Rows, path: Path, provenance: dict[str, str]) -> str:
    names = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int32: "I32"}
    # A placeholder of the right length keeps rows out of memory: only its size counts for the header.
    columns = {"key": features.key_array, **pack_strings("uri", features.uris)}
    if features.labels is not None:
        columns["y"] = features.labels.numpy()
    types = {"uint8": "U8", "int64": "I64"}
    tensors = {name: (types[str(value.dtype)], value.shape, array_bytes(value)) for name, value in columns.items()}
    num_bytes = math.prod(rows.shape) * rows.dtype.itemsize
    tensors["x"] = (names[rows.dtype], rows.shape, _sized(num_bytes))
    order = sorted(tensors)
    header, *parts = file_parts(tensors, provenance)
    with path.open("wb") as file:
        file.write(header)
        for name, part in zip(order, parts, strict=True):
            if name == "x":
                for _, chunk in rows.chunks:
                    file.write(tensor_bytes(chunk))
            else:
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return str(rows.dtype).removeprefix("torch.")


def _sized(num_bytes: int) -> memoryview:
    """A view of a given length that takes no memory."""
    import numpy as np

    return np.broadcast_to(np.zeros(1, np.uint8), num_bytes).data
