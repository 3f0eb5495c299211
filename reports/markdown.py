"""Markdown: tables and sentences in which what looks like markup is text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .picture import Picture
from .table import Cell, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&~$#])")
_INSIDE_WORD = re.compile(r"(?<=[A-Za-z0-9])\\_(?=[A-Za-z0-9])")


def escaped(text: str) -> str:
    """Text on one line, as it is shown."""
    return _INSIDE_WORD.sub("_", _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def markdown_table(table: Table) -> Iterator[str]:
    """Lines; none for an empty table."""
    if not table.rows:
        return
    yield from ("", escaped(table.caption), "")
    yield _row(escaped(column.name) for column in table.columns)
    yield _row("---" if column.is_text else "---:" for column in table.columns)
    yield from (_row(map(_cell, row)) for row in table.rows)


def markdown_picture(picture: Picture, folder: str) -> Iterator[str]:
    """Lines that show a picture out of `folder`, with its caption."""
    yield from ("", f"![{escaped(picture.alt)}]({folder}/{picture.name}.png)", "", escaped(picture.caption))


def _cell(cell: Cell) -> str:
    return escaped(f"{cell.text} ({cell.note})" if cell.note else cell.text)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
