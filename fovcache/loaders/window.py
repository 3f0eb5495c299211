"""Rows of equal size in several mapped files, read by number as if they were one array."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided


class Window:
    """Gathers rows out of several files with one copy and one call, at the speed of `np.take` in memory.

    The files' mappings lie somewhere in the address space, so all their rows are elements of one array that begins
    at the lowest of them and has an element at every multiple of the largest step that leads to every row. Elements
    that are no rows overlap rows or lie between the mappings, and are never touched.
    """

    def __init__(self, files: Sequence[tuple[os.PathLike[str], int, int]], row_bytes: int) -> None:
        """`files` are (path, offset of the first row, number of rows). Raises ValueError for a file that is shorter."""
        self._maps = [
            np.memmap(path, f"V{row_bytes}", "r", offset, (count,)).view(np.ndarray) for path, offset, count in files
        ]
        self._row_bytes = row_bytes
        begins = np.array([rows.ctypes.data for rows in self._maps], np.int64)
        ends = begins + [rows.nbytes for rows in self._maps]
        lowest = int(begins.argmin())
        begins, end = begins - begins[lowest], int(ends.max() - begins[lowest])
        self._step = math.gcd(row_bytes, *begins.tolist())
        self._begins = begins // self._step
        shape = ((end - row_bytes) // self._step + 1,)
        self._rows = as_strided(self._maps[lowest], shape, (self._step,), writeable=False)

    def take(self, file: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Row `row[i]` of `files[file[i]]` for each i: uint8 [n, row bytes]. Every row must be in its file."""
        at = self._begins[file] + row.astype(np.int64) * (self._row_bytes // self._step)
        data: np.ndarray = self._rows[at].view(np.uint8)
        return data.reshape(len(at), self._row_bytes)
