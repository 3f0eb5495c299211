"""Columns of strings as tensors: `NAME.utf8` (bytes), `NAME.ends` (int64 [n]), with gaps `NAME.valid` (uint8 [n])."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def pack_strings(name: str, values: Sequence[str | None]) -> dict[str, np.ndarray]:
    """The tensors of a column; none at all when every value is None."""
    if all(value is None for value in values):
        return {}
    encoded = [b"" if value is None else value.encode() for value in values]
    columns: dict[str, np.ndarray] = {
        f"{name}.utf8": np.frombuffer(b"".join(encoded), np.uint8),
        f"{name}.ends": np.cumsum([len(value) for value in encoded], dtype=np.int64),
    }
    if any(value is None for value in values):
        columns[f"{name}.valid"] = np.array([value is not None for value in values], np.uint8)
    return columns


def unpack_strings(name: str, columns: Mapping[str, np.ndarray], num_rows: int) -> list[str | None]:
    """The column's values; all None when it is absent."""
    if f"{name}.ends" not in columns:
        return [None] * num_rows
    text = columns[f"{name}.utf8"].tobytes()
    ends = columns[f"{name}.ends"].tolist()
    valid = columns[f"{name}.valid"].tolist() if f"{name}.valid" in columns else [1] * num_rows
    starts = [0, *ends[:-1]]
    return [text[start:end].decode() if ok else None for start, end, ok in zip(starts, ends, valid, strict=True)]
