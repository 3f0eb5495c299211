"""The rows of a manifest by its format: what stands in the columns that mean something, or why a row is none."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import SourceError, nearest
from .csv_records import read_records
from .text_lines import read_lines

logger = logging.getLogger(__name__)

Row = dict[str, Any] | str
"""Values by column, or the reason why the row is none."""

_COLUMNS = ("uri", "label", "caption", "group", "split", "start_s", "end_s")
_KNOWN = frozenset(_COLUMNS)
_ALIASES = ("path", "url", "file", "filename", "file_name", "filepath", "file_path", "image", "video", "name", "src")
_MAX_NAMES = 100
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_BATCH_ROWS = 16384


def csv_rows(path: Path, ignored: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a CSV or TSV file with a header. Labels are integers if all of them are, else text."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    records = read_records(path, delimiter)
    header = next(records, (0, ["uri"]))[1]
    if isinstance(header, str):
        raise SourceError(f"manifest {path}: the header cannot be read: {header}")
    names = [name.strip() for name in header]
    _check_columns(path, names, ignored)
    columns = [(index, name) for index, name in enumerate(names) if name in _KNOWN]
    has_integers = "label" in names and _all_integers(path, delimiter, names.index("label"))
    for where, fields in records:
        if isinstance(fields, str):
            yield where, fields
            continue
        row: dict[str, Any] = {name: fields[index] for index, name in columns if fields[index]}
        for name in ("start_s", "end_s"):
            if name in row and _NUMBER.fullmatch(row[name]):
                row[name] = float(row[name])
        if has_integers and "label" in row:
            row["label"] = int(row["label"])
        yield where, row


def _all_integers(path: Path, delimiter: str, column: int) -> bool:
    """Whether every label is an integer as Python writes it: 7 and not 007, 7.0 or +7."""
    num_integers = 0
    for where, fields in islice(read_records(path, delimiter), 1, None):
        if isinstance(fields, str) or not (label := fields[column]):
            continue
        if not _INTEGER.fullmatch(label) or not -(2**63) <= int(label) < 2**63:
            if num_integers:
                logger.warning(
                    "manifest %s: all labels are text, because that of line %d is %.40r; %d labels before it are whole "
                    "numbers",
                    path,
                    where,
                    label,
                    num_integers,
                )
            return False
        num_integers += 1
    return True


def json_rows(path: Path, ignored: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a file with one JSON object a line."""
    names: set[str] = set()
    is_empty, has_uri = True, False
    for where, line in enumerate(read_lines(path), 1):
        if line.isspace():
            continue
        is_empty = False
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield where, f"not JSON: {_said(error)}"
            continue
        if not isinstance(row, dict):
            yield where, f"a JSON {type(row).__name__}, expected an object with a uri"
            continue
        has_uri = has_uri or "uri" in row
        if len(names) < _MAX_NAMES:
            names |= row.keys()
        yield where, row
    ignored.update(names - _KNOWN)
    if not has_uri and not is_empty:
        raise _without_uri(path, sorted(names))


def _said(error: Exception) -> str:
    return f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "out of bounds"


def parquet_rows(path: Path, ignored: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file, counted from 1."""
    import pyarrow
    from pyarrow import parquet

    damaged = (pyarrow.ArrowException, OSError, ValueError, MemoryError)
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file)
            schema = table.schema_arrow
        except damaged as error:
            raise SourceError(f"manifest {path} is no Parquet file: {_first_line(error)}") from error
        _check_columns(path, schema.names, ignored)
        names = [name for name in _COLUMNS if name in schema.names]
        for name in names:
            _check_type(path, name, schema.field(name).type)
        batches = table.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)
        where = 1
        while True:
            try:
                batch = next(batches, None)
                columns = [_values(column) for column in batch.columns] if batch else []
            except damaged as error:
                raise SourceError(f"manifest {path} is damaged after row {where - 1}: {_first_line(error)}") from error
            if batch is None:
                return
            for values in zip(*columns, strict=True):
                yield where, dict(zip(batch.schema.names, values, strict=True))
                where += 1


def _values(column: Any) -> list[Any]:
    """The values as Python has them; bytes where a text is not UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow

        texts = column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
        return [_decoded(value) for value in texts.cast(pyarrow.large_binary()).to_pylist()]
    return values


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _check_type(path: Path, name: str, kind: Any) -> None:
    """Refuse a column that cannot hold a single usable value, once and not in each of its rows."""
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    allowed = [types.is_null]
    if name not in ("start_s", "end_s"):
        allowed += [types.is_string, types.is_large_string, types.is_string_view]
    if name not in ("uri", "caption", "split"):
        allowed += [types.is_integer, types.is_float32, types.is_float64]
    if not any(is_kind(value) for is_kind in allowed):
        expected = {"label": "whole numbers or text", "start_s": "numbers", "end_s": "numbers"}.get(name, "text")
        raise SourceError(f"manifest {path}: column {name!r} holds {value}, expected {expected}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_columns(path: Path, names: Sequence[str], ignored: Counter[str]) -> None:
    """Count the columns that mean nothing. Raises SourceError without a uri, and for a name that is there twice."""
    twice = [name for name, num in Counter(names).items() if num > 1 and name in _KNOWN]
    if twice:
        raise SourceError(f"manifest {path} has two columns {twice[0]!r}; expected one")
    ignored.update(name for name in names if name not in _KNOWN)
    if "uri" not in names:
        raise _without_uri(path, names)


def _without_uri(path: Path, names: Sequence[str]) -> SourceError:
    """The error for a manifest that says nowhere where its samples lie."""
    if not names:
        return SourceError(
            f'manifest {path} has no line that is a JSON object; expected one a line, as in {{"uri": …}}'
        )
    if len(names) == 1 and re.search(r"[;\t|]", names[0]):
        advice = "; separate columns by commas in .csv, by tabs in .tsv"
    elif alias := next((name for name in names if name.lower().strip() in _ALIASES), None):
        advice = f"; did you mean {alias!r}? Rename it to uri"
    else:
        advice = nearest("uri", [name for name in names if name.isprintable()])
    return SourceError(f"manifest {path} has no column 'uri'; its columns are {names_said(names)}{advice}")


def names_said(names: Iterable[str]) -> str:
    """Names of columns for people."""
    shown = [repr(name[:40]) for name in sorted(set(names))]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


ROWS: dict[str, Callable[[Path, Counter[str]], Iterator[tuple[int, Row]]]] = {
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".parquet": parquet_rows,
}
"""The reader of each format, by the file's ending."""
