"""Trials as a Parquet file, for pandas and its kin."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..result import Trial

TABLE_FILE = "trials.parquet"
_TEXT_OF = {"setting": lambda value: json.dumps(value, sort_keys=True)}
"""Columns that hold JSON: their keys are not the same for every head."""


def trials_parquet(trials: Sequence[Trial]) -> bytes:
    """One row a trial, one column a field: `layers` and `notes` are lists of texts, `setting` is JSON."""
    import pyarrow
    import pyarrow.parquet

    columns = {field.name: [_value(trial, field.name) for trial in trials] for field in fields(Trial)}
    kinds = {
        "str": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "tuple[str, ...]": pyarrow.list_(pyarrow.string()),
        "Mapping[str, float]": pyarrow.string(),
    }
    schema = pyarrow.schema([(field.name, kinds[str(field.type)]) for field in fields(Trial)])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), buffer)
    return buffer.getvalue()


def _value(trial: Trial, name: str) -> Any:
    value = getattr(trial, name)
    return _TEXT_OF[name](value) if name in _TEXT_OF else value
