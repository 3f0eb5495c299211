"""The memo: what a file held when it was last hashed, so that an unchanged file need not be read again.

It is derived and of one machine: it may be deleted at any time, is never part of a key, and a build checks
every sample's bytes against its key when it reads them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ..keys.digest import bytes_digest

logger = logging.getLogger(__name__)

RACY_NS = 2_000_000_000
"""A file that changed less than this before it was hashed is hashed again: a later write within the clock's
grain would leave its times as they are (git's rule for racy index entries; FAT keeps 2 s)."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS memo (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, "
    "inode INTEGER, hashed_ns INTEGER, value BLOB, seal TEXT) WITHOUT ROWID"
)


class Memo:
    """Remembers a value for a file as long as its size, times and inode stay.

    Whatever goes wrong with its own file costs time, never correctness: it is logged and done without.
    """

    def __init__(self, path: Path | None, *, ignore: bool = False) -> None:
        self._path = path
        self._ignore = ignore
        self._rows: dict[bytes, tuple[object, ...]] = {}
        self._new: list[tuple[object, ...]] = []
        self._is_damaged = False
        if path is not None and path.exists() and not ignore:
            try:
                self._rows = _read(path)
            except (sqlite3.Error, ValueError) as error:
                self._is_damaged = _is_damage(error)
                logger.warning("%s cannot be read and is done without: %s", path, error)

    def get(self, path: str, stat: os.stat_result) -> bytes | None:
        """What was remembered for the file as it is now."""
        row = self._rows.get(os.fsencode(path))
        if row is None or row[:4] != _identity(stat):
            return None
        hashed_ns, value, seal = row[4:]
        if not isinstance(hashed_ns, int) or not isinstance(value, bytes):
            return None
        racy = max(stat.st_mtime_ns, stat.st_ctime_ns) > hashed_ns - RACY_NS
        return None if racy or seal != _seal(os.fsencode(path), row[:5], value) else value

    def remember(self, path: str, stat: os.stat_result, hashed_ns: int, value: bytes) -> None:
        """Remember a value that was computed from the file as `stat` says, begun at `hashed_ns`."""
        row = (*_identity(stat), hashed_ns)
        self._new.append((os.fsencode(path), *row, value, _seal(os.fsencode(path), row, value)))

    def save(self) -> None:
        """Write what was remembered."""
        if self._path is None or not self._new:
            return
        try:
            if self._is_damaged:
                _remove(self._path)
            _write(self._path, self._new)
        except (sqlite3.Error, OSError) as error:
            logger.info("%s was not updated: %s", self._path, error)
            if _is_damage(error):  # the next build starts a new one
                with contextlib.suppress(OSError):
                    _remove(self._path)
        self._new.clear()


def now_ns() -> int:
    """The wall clock, as file times are kept."""
    return time.time_ns()


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _signed(stat.st_ino)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number  # SQLite's integers are signed


def _seal(path: bytes, row: tuple[object, ...], value: bytes) -> str:
    """A flipped bit in the memo must not become a wrong key."""
    return bytes_digest(b"\0".join([path, repr(row).encode(), value]))[:16]


def _is_damage(error: Exception) -> bool:
    """Whether an error is about what is in the file, and not about reaching it (locked, read-only, full)."""
    if isinstance(error, OSError):
        return False
    damage = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in damage


def _remove(path: Path) -> None:
    """Remove a database, and with it what an interrupted write left, which belongs to it alone."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + "-journal").unlink(missing_ok=True)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=10)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def _read(path: Path) -> dict[bytes, tuple[object, ...]]:
    with _open(path) as connection:
        rows = connection.execute("SELECT path, size, mtime_ns, ctime_ns, inode, hashed_ns, value, seal FROM memo")
        return {row[0]: row[1:] for row in rows}


def _write(path: Path, rows: list[tuple[object, ...]]) -> None:
    with _open(path) as connection:
        connection.execute(_TABLE)
        connection.executemany("INSERT OR REPLACE INTO memo VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
