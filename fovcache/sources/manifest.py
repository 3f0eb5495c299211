"""Manifests: tables of samples as CSV, JSON lines or Parquet, with where each lies and what is known of it."""

from __future__ import annotations

import difflib
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import SourceError, nearest
from .address import Base
from .entry import Entry
from .fields import check_annotation, check_text, check_window, is_missing
from .manifest_rows import COLUMNS, Row, csv_rows, json_rows, parquet_rows

logger = logging.getLogger(__name__)

_ROWS: dict[str, Callable[[Path, Counter[str]], Iterator[tuple[int, Row]]]] = {
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".parquet": parquet_rows,
}
MANIFEST_SUFFIXES = frozenset(_ROWS)
SPLIT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""What a split may be called, here and in front of a SOURCE."""
_USUAL_SPLITS = ("train", "val", "test", "training", "valid", "validation", "dev", "testing", "eval", "evaluation")
_USUAL_NAMES = ("path", "url", "file", "filename", "file_name", "filepath", "file_path", "image", "video", "name", "src")
_MAX_SHOWN = 200


def read_manifest(
    path: Path,
    number: int,
    split: str | None,
    *,
    root: Path | None = None,
    allow_file_urls: bool = False,
) -> Iterator[Entry]:
    """What the manifest of source `number` lists, in its order; rows that cannot become samples have a `fault`.

    Relative uris start at the manifest's folder and are recorded relative to `root`, by default the same folder.
    `split` comes before the column of that name. Raises SourceError for what is no manifest, or an empty one.
    """
    path = path.absolute()
    base = Base(folder=str(path.parent), root=str(root or path.parent), allow_file_urls=allow_file_urls)
    table = _Table(path.name, number, split, base)
    ignored: Counter[str] = Counter()
    try:
        for where, row in _ROWS[path.suffix.lower()](path, ignored):
            yield table.entry(where, row)
    except OSError as error:
        raise SourceError(f"manifest {path} cannot be read: {error.strerror or error}") from error
    if not table.num_rows:
        raise SourceError(f"manifest {path} is empty; expected rows with a uri")
    if not table.has_uris:
        raise SourceError(_without_uri(path, list(ignored)))
    if ignored:
        logger.warning("manifest %s: columns that mean nothing here are ignored: %s", path, _names(ignored))
    if table.odd_splits:
        logger.warning("manifest %s: %s", path, _about_splits(table.odd_splits))


class _Table:
    """Makes entries of rows, and remembers what is to be said about all of them."""

    def __init__(self, name: str, number: int, split: str | None, base: Base) -> None:
        self._name = name
        self._number = number
        self._split = split
        self._base = base
        self.num_rows = 0
        self.has_uris = False
        self.odd_splits: Counter[str] = Counter()

    def entry(self, where: int, row: Row) -> Entry:
        """The entry of one row, `where` it stands in its file."""
        self.num_rows += 1
        if isinstance(row, str):
            return self._fault(where, "", row)
        uri = row.get("uri")
        if is_missing(uri):
            return self._fault(where, "", "it has no uri")
        self.has_uris = True
        if not isinstance(uri, str):
            return self._fault(where, "", f"uri is {uri!r:.40}, expected text")
        try:
            recorded, place = self._base.locate(uri)
            start_s, end_s = check_window(row.get("start_s"), row.get("end_s"))
            return Entry(
                uri=recorded,
                source=self._number,
                place=place,
                label=_annotation("label", row.get("label")),
                caption=_text("caption", row.get("caption")),
                group=_text("group", row.get("group")),
                split=self._split or self._split_of(row.get("split")),
                start_s=start_s,
                end_s=end_s,
            )
        except ValueError as error:
            return self._fault(where, uri, str(error))

    def _split_of(self, value: Any) -> str | None:
        split = _text("split", value)
        if split is None:
            return None
        if not SPLIT.fullmatch(split):
            raise ValueError(f"split is {split[:40]!r}, expected letters, digits, '_' and '-', as in train")
        if split not in _USUAL_SPLITS:
            self.odd_splits[split] += 1
        return split

    def _fault(self, where: int, uri: str, reason: str) -> Entry:
        place = f"{self._name}:{where}"
        return Entry(uri=shown_uri(uri) or place, source=self._number, fault=f"{reason} ({place})")


def shown_uri(uri: str) -> str:
    """A uri that is at fault, fit to be recorded: short, UTF-8, without control characters or secrets."""
    from ..fetch.redact import redact

    text = redact(uri[:_MAX_SHOWN]).encode("utf-8", "backslashreplace").decode()
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _annotation(name: str, value: Any) -> int | str | None:
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():  # what tables make of integers where some are missing
        value = int(value)
    value = check_annotation(name, value)
    return sys.intern(value) if isinstance(value, str) else value
