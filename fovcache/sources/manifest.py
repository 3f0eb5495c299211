"""Manifests: tables of samples as CSV, JSON lines or Parquet, with where each lies and what is known of it."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SourceError, nearest
from .address import Base, shown_uri
from .entry import Entry
from .fields import check_annotation, check_window, is_missing
from .manifest_rows import ROWS, Row, names_said

logger = logging.getLogger(__name__)

MANIFEST_SUFFIXES = frozenset(ROWS)
SPLIT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""What a split may be called, here and in front of a SOURCE."""
_USUAL_SPLITS = ("train", "val", "test", "training", "valid", "validation", "dev", "testing", "eval", "evaluation")


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
        for where, row in ROWS[path.suffix.lower()](path, ignored):
            yield table.entry(where, row)
    except OSError as error:
        raise SourceError(f"manifest {path} cannot be read: {error.strerror or error}") from error
    if not table.num_rows:
        raise SourceError(f"manifest {path} is empty; expected rows with a uri")
    if ignored:
        logger.warning("manifest %s: columns that mean nothing here are ignored: %s", path, names_said(ignored))
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
        self.odd_splits: Counter[str] = Counter()

    def entry(self, where: int, row: Row) -> Entry:
        """The entry of one row, `where` it stands in its file."""
        self.num_rows += 1
        if isinstance(row, str):
            return self._fault(where, "", row)
        uri = row.get("uri")
        if is_missing(uri):
            return self._fault(where, "", "it has no uri")
        if not isinstance(uri, str):
            return self._fault(where, "", "uri is not UTF-8" if isinstance(uri, bytes) else f"uri is {uri!r:.40}")
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
                split=self._split or self._column_split(row.get("split")),
                start_s=start_s,
                end_s=end_s,
            )
        except ValueError as error:
            return self._fault(where, uri, str(error))

    def _column_split(self, value: Any) -> str | None:
        split = _text("split", value)
        if split is not None and split not in _USUAL_SPLITS:
            if not SPLIT.fullmatch(split):
                raise ValueError(f"split is {split[:40]!r}, expected a name of letters, digits, '_' and '-'")
            self.odd_splits[split] += 1
        return split

    def _fault(self, where: int, uri: str, reason: str) -> Entry:
        stands = f"{self._name}:{where}"
        return Entry(uri=shown_uri(uri) or stands, source=self._number, fault=f"{reason} ({stands})")


def _annotation(name: str, value: Any) -> int | str | None:
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():  # what tables make of integers where some are missing
        value = int(value)
    checked = check_annotation(name, value)
    return checked if name == "caption" or isinstance(checked, int) else sys.intern(checked)  # few, and often repeated


def _text(name: str, value: Any) -> str | None:
    checked = _annotation(name, value)
    assert not isinstance(checked, int), "only labels are numbers"
    return checked


def _about_splits(odd: Counter[str]) -> str:
    said = []
    for split, num in odd.most_common(5):
        near = nearest(split, _USUAL_SPLITS, most=1)
        said.append(f"{split!r} ({num} rows{near if near.startswith('; nearest') else ''})")
    more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
    return f"{odd.total()} rows are in splits other than train, val, test, …; they are kept: {', '.join(said)}{more}"
