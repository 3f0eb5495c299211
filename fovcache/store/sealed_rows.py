"""What this machine remembers for later runs: rows in an SQLite file, each with a seal.

It is derived: it may be deleted at any time, and whatever goes wrong with the file costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..keys.digest import bytes_digest

logger = logging.getLogger(__name__)


class SealedRows:
    """A value by key, with fields that say for what it holds.

    `get` answers from what the file held when it was opened; `put` is kept until `save`. Both may be called from
    several threads.
    """

    def __init__(
        self, path: Path | None, table: str, columns: str, *, ignore: bool = False, read_only: bool = False
    ) -> None:
        """`columns` are the key's and the fields', as CREATE TABLE takes them; `ignore` does without what is there, and
        `read_only` writes nothing."""
        self._path = path
        self._table = table
        self._columns = f"{columns}, value BLOB, seal TEXT"
        self._rows: dict[bytes, tuple[Any, ...]] = {}
        self._new: list[tuple[Any, ...]] = []
        self._is_damaged = False
        self._is_read_only = read_only
        if path is not None and path.exists() and not ignore:
            try:
                self._rows = self._read(path)
            except (sqlite3.Error, ValueError) as error:
                self._is_damaged = _is_damage(error)
                logger.warning("%s cannot be read and is done without: %s", path, error)

    def get(self, key: bytes) -> tuple[tuple[Any, ...], bytes] | None:
        """The fields and the value, as they were put."""
        row = self._rows.get(key)
        if row is None:
            return None
        *fields, value, seal = row
        if not isinstance(value, bytes) or seal != _seal(key, tuple(fields), value):
            return None
        return tuple(fields), value

    def put(self, key: bytes, fields: tuple[object, ...], value: bytes) -> None:
        """Remember a value: fields are integers, texts or None."""
        self._new.append((key, *fields, value, _seal(key, fields, value)))

    def save(self) -> None:
        """Write what was put."""
        new, self._new = self._new, []
        if self._path is None or self._is_read_only or not new:
            return
        try:
            if self._is_damaged:
                _remove(self._path)
            self._write(self._path, new)
        except (sqlite3.Error, OSError) as error:
            logger.info("%s was not updated: %s", self._path, error)
            if _is_damage(error):  # the next build starts a new one
                with contextlib.suppress(OSError):
                    _remove(self._path)

    def _read(self, path: Path) -> dict[bytes, tuple[Any, ...]]:
        names = ", ".join(column.split()[0] for column in self._columns.split(", "))
        with _open(path) as connection:
            return {row[0]: row[1:] for row in connection.execute(f"SELECT {names} FROM {self._table}")}

    def _write(self, path: Path, rows: list[tuple[Any, ...]]) -> None:
        with _open(path) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} ({self._columns}) WITHOUT ROWID")
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES ({marks})", rows)


def _seal(key: bytes, fields: tuple[object, ...], value: bytes) -> str:
    """A flipped bit in the file must not become a wrong key."""
    return bytes_digest(b"\0".join([key, repr(fields).encode(), value]))[:16]


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
