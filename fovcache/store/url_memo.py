"""The memo of URLs: what a URL held when it was last fetched, so that what is unchanged need not be fetched again.

Like the memo of files it is derived, of one machine, and never part of a key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .sealed_rows import SealedRows

_COLUMNS = "url BLOB PRIMARY KEY, etag TEXT, last_modified TEXT, size INTEGER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What a server said of the version of a file that it sent."""

    etag: str | None = None
    """Its ETag, quotes and all."""
    last_modified: str | None = None
    """Its Last-Modified, as it was sent; at least one of the two is there."""
    size_bytes: int | None = None
    """Its Content-Length; None where it was not said."""

    def __post_init__(self) -> None:
        assert self.etag or self.last_modified


class UrlMemo:
    """Remembers a value for a URL, with the validators by which a server can say that it is unchanged.

    URLs come without their secrets.
    """

    def __init__(self, path: Path | None, *, ignore: bool = False, read_only: bool = False) -> None:
        self._rows = SealedRows(path, "urls", _COLUMNS, ignore=ignore, read_only=read_only)

    def get(self, url: str) -> tuple[Validators, bytes] | None:
        """What was remembered for a URL."""
        row = self._rows.get(os.fsencode(url))
        if row is None:
            return None
        (etag, last_modified, size_bytes), value = row
        return Validators(etag=etag, last_modified=last_modified, size_bytes=size_bytes), value

    def remember(self, url: str, validators: Validators, value: bytes) -> None:
        """Remember a value that was computed from what the URL gave."""
        self._rows.put(os.fsencode(url), (validators.etag, validators.last_modified, validators.size_bytes), value)

    def save(self) -> None:
        """Write what was remembered."""
        self._rows.save()
