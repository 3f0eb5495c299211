"""CSV as RFC 4180 has it, read so that one stray quote loses one row.

A quote that is never closed makes all that follows one field. What does not read as a row is therefore given up as
its first line alone, and reading goes on with the next line.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from ..errors import SourceError
from .fields import MAX_TEXT_BYTES
from .text_lines import read_lines

_LINE_WEIGHT = 64
"""What a line costs beside its characters, in characters."""
_MAX_RECORD = 1 << 23
_MAX_REREAD = 1 << 27
"""In characters and lines' weights. Text can be so made that every line opens a quote which nothing closes."""


def read_records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """`(line number, fields)` of each row, the header first; the reason instead of the fields of what is no row.

    Empty lines are passed over. A row has as many fields as the header. Raises OSError, SourceError.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_TEXT_BYTES))  # longer ones: rows, but faulty ones
    lines = _Lines(path)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    width = 0
    while True:
        first = lines.start_record()
        fault = ""
        try:
            fields = next(reader, None)
        except csv.Error as error:
            said = str(error).replace("\t", "\\t")  # the delimiter, as is
            fields, fault = [], f"not a row of CSV: {said}"
        if fields is None:
            return
        if not fault and (not fields or (len(fields) == 1 and not fields[0].strip())):
            continue
        width = width or len(fields)
        if not fault and len(fields) != width:
            fault = f"it has {len(fields)} fields, expected {width} as in the header"
        if fault:
            lines.go_back()
            yield first, fault
        elif lines.has_nul():
            yield first, "it has a NUL character, which is no text"
        else:
            yield first, fields


class _Lines:
    """A file's lines, which remembers those of the record that is being read, to go back to the second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = read_lines(path)
        self._again: deque[str] = deque()
        self._record: list[str] = []
        self._num_before = 0
        self._weight = 0
        self._reread = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self._weight += len(line) + _LINE_WEIGHT
        if self._record and self._weight > _MAX_RECORD:
            self._again.appendleft(line)
            raise csv.Error("a quote that opens here is not closed")
        self._record.append(line)
        return line

    def start_record(self) -> int:
        """Forget the last record; the number of the next line, counted from 1."""
        self._num_before += len(self._record)
        self._record.clear()
        self._weight = 0
        return self._num_before + 1

    def has_nul(self) -> bool:
        """Whether the record has a NUL character."""
        return any("\0" in line for line in self._record)

    def go_back(self) -> None:
        """Read the record's lines again, but its first."""
        rest = self._record[1:]
        self._reread += self._weight if rest else 0
        if self._reread > _MAX_REREAD:
            raise SourceError(f"{self._path} has too many quotes that are not closed; expected CSV as of RFC 4180")
        self._again.extendleft(reversed(rest))
        del self._record[1:]
