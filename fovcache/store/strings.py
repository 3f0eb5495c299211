"""Columns of strings as tensors, in two forms.

A text column, for values that are mostly distinct: `NAME.utf8` (bytes), `NAME.ends` (int64 [n]) and, where some
are None, `NAME.valid` (uint8 [n]). A category column, for values that repeat: `NAME.code` (int32 [n], −1 for None)
and its sorted distinct values as the text column `NAME.value`. A column whose values are all None is absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def pack_strings(name: str, values: Sequence[str | None]) -> dict[str, np.ndarray]:
    """The tensors of a text column."""
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


def unpack_strings(
    name: str, columns: Mapping[str, np.ndarray], num_rows: int, positions: np.ndarray | slice = slice(None)
) -> list[str | None]:
    """The values at `positions`; all None when the column of `num_rows` is absent."""
    if f"{name}.ends" not in columns:
        return [None] * len(np.arange(num_rows)[positions])
    text = columns[f"{name}.utf8"].tobytes()
    ends = columns[f"{name}.ends"]
    starts = np.concatenate([[0], ends[:-1]])[positions].tolist()
    valid = columns[f"{name}.valid"][positions].tolist() if f"{name}.valid" in columns else [1] * len(starts)
    return [
        text[start:end].decode() if ok else None
        for start, end, ok in zip(starts, ends[positions].tolist(), valid, strict=True)
    ]


def pack_categories(name: str, values: Sequence[str | None]) -> dict[str, np.ndarray]:
    """The tensors of a category column."""
    distinct = sorted({value for value in values if value is not None})
    if not distinct:
        return {}
    codes = {value: code for code, value in enumerate(distinct)}
    column = np.array([-1 if value is None else codes[value] for value in values], np.int32)
    return {f"{name}.code": column, **pack_strings(f"{name}.value", distinct)}


def unpack_categories(name: str, columns: Mapping[str, np.ndarray], num_rows: int) -> tuple[np.ndarray, list[str]]:
    """`(codes int32 [num_rows], distinct values)`; −1 everywhere when the column is absent."""
    if f"{name}.code" not in columns:
        return np.full(num_rows, -1, np.int32), []
    num_values = len(columns[f"{name}.value.ends"])
    values = unpack_strings(f"{name}.value", columns, num_values)
    return columns[f"{name}.code"], [str(value) for value in values]
