"""URL lists: text files with one http(s) URL a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import SourceError
from .address import Base, scheme_of, shown_uri
from .entry import Entry
from .text_lines import read_lines

URL_LIST_SUFFIXES = frozenset({".txt", ".urls"})


def read_url_list(
    path: Path,
    number: int,
    split: str | None,
    *,
    root: Path | None = None,
    allow_file_urls: bool = False,
) -> Iterator[Entry]:
    """What the URL list of source `number` lists; lines that are no URL have a `fault`.

    Empty lines and lines that start with `#` are passed over. Raises SourceError for what is no text, or an empty list.
    """
    path = path.absolute()
    base = Base(folder=str(path.parent), root=str(root or path.parent), allow_file_urls=allow_file_urls)
    is_empty = True
    try:
        for line_number, line in enumerate(read_lines(path), 1):
            if (text := line.strip()) and not text.startswith("#"):
                is_empty = False
                yield _entry(text, base, number, split, f" ({path.name}:{line_number})")
    except OSError as error:
        raise SourceError(f"URL list {path} cannot be read: {error.strerror or error}") from error
    if is_empty:
        raise SourceError(f"URL list {path} is empty; expected one http(s) URL a line")


def url_entries(urls: Iterable[str], number: int, split: str | None) -> Iterator[Entry]:
    """The entries of source `number` that is itself a URL, or several."""
    base = Base(folder="/", root="/", allow_file_urls=False)
    return (_entry(url, base, number, split, "") for url in urls)


def _entry(text: str, base: Base, number: int, split: str | None, stands: str) -> Entry:
    try:
        if not scheme_of(text):
            raise ValueError("a path and no URL; a manifest (.csv, .jsonl, .parquet) with a column uri may list paths")
        uri, place = base.locate(text)
    except ValueError as error:
        return Entry(uri=shown_uri(text), source=number, fault=f"{error}{stands}")
    return Entry(uri=uri, source=number, place=place, split=split)
