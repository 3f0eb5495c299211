"""The memo: what a file held when it was last hashed, so that an unchanged file need not be read again.

It is derived and of one machine: it may be deleted at any time, is never part of a key, and a build checks
every sample's bytes against its key when it reads them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from .sealed_rows import SealedRows

RACY_NS = 2_000_000_000
"""A file that changed less than this before it was hashed is hashed again: a later write within the clock's
grain would leave its times as they are (git's rule for racy index entries; FAT keeps 2 s)."""

_COLUMNS = "path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, hashed_ns INTEGER"


class Memo:
    """Remembers a value for a file as long as its size, times and inode stay."""

    def __init__(self, path: Path | None, *, ignore: bool = False) -> None:
        self._rows = SealedRows(path, "memo", _COLUMNS, ignore=ignore)

    def get(self, path: str, stat: os.stat_result) -> bytes | None:
        """What was remembered for the file as it is now."""
        row = self._rows.get(os.fsencode(path))
        if row is None:
            return None
        (*identity, hashed_ns), value = row
        racy = max(stat.st_mtime_ns, stat.st_ctime_ns) > hashed_ns - RACY_NS
        return None if racy or tuple(identity) != _identity(stat) else value

    def remember(self, path: str, stat: os.stat_result, hashed_ns: int, value: bytes) -> None:
        """Remember a value that was computed from the file as `stat` says, begun at `hashed_ns`."""
        self._rows.put(os.fsencode(path), (*_identity(stat), hashed_ns), value)

    def save(self) -> None:
        """Write what was remembered."""
        self._rows.save()


def now_ns() -> int:
    """The wall clock, as file times are kept."""
    return time.time_ns()


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _signed(stat.st_ino)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number  # SQLite's integers are signed
