"""Tables as values: the page and the Markdown beside it show the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import numbers
from .names import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table."""

    name: str
    """Its heading."""
    is_text: bool = False
    """Whether it is aligned to the left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a table."""

    text: str
    """What is read."""
    value: float | None = None
    """The number that the text tells; None where it is none."""
    note: str = ""
    """In small letters below it."""
    is_code: bool = False
    """Whether it is something to copy: never broken, in letters of one width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; its first column names the rows."""

    id: str
    """Unique on a page."""
    caption: str
    """What it shows, and in which units."""
    columns: tuple[Column, ...]
    """Its columns."""
    rows: tuple[tuple[Cell, ...], ...]
    """As many cells each as there are columns."""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)


def table(id: str, caption: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table; columns whose name starts with `<` are text, as is the first."""
    return Table(
        id=id,
        caption=caption,
        columns=tuple(
            Column(name=name.removeprefix("<"), is_text=not place or name.startswith("<"))
            for place, name in enumerate(columns)
        ),
        rows=tuple(tuple(row) for row in rows),
    )


def text(name: str, note: str = "") -> Cell:
    """Text out of a file."""
    return Cell(text=shown(name), note=note)


def count(value: int, note: str = "") -> Cell:
    """A whole number."""
    return Cell(text=numbers.count(value), value=value, note=note)


def accuracy(value: float, note: str = "") -> Cell:
    """A fraction, in percent."""
    return Cell(text=numbers.percent(value), value=value, note=note)


def size(value: int) -> Cell:
    """Bytes."""
    return Cell(text=numbers.size(value), value=value)


def duration(value_s: float) -> Cell:
    """Seconds."""
    return Cell(text=numbers.duration(value_s), value=value_s)


def digest(value: str) -> Cell:
    """The beginning of a digest, enough to find it by."""
    return Cell(text=shown(value[:12]), is_code=True)


def moment(iso: str) -> Cell:
    """A time of ISO 8601, to the minute."""
    return Cell(text=shown(iso[:16].replace("T", " ")) or numbers.ABSENT, is_code=True)


ABSENT = Cell(text=numbers.ABSENT)
"""What was not measured."""
