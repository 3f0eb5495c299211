"""The log of a run: JSON lines, one a step, an evaluation and an event, each with the samples seen.

A run that is killed loses the last second's lines at most, and one that goes on from a checkpoint cuts off what came
after it, so that no step is in the file twice.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fovcache.errors import environment_failure

STEP, EVALUATION, EVENT = "step", "evaluation", "event"
FLUSH_EVERY_S = 1.0


class RunLog:
    """Appends to a run's log. Raises EnvironmentFailure."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self.num_bytes = 0
        """Written by this object."""
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise environment_failure(error, f"write {path}") from error

    def add(self, kind: str, samples_seen: int, values: Mapping[str, Any]) -> None:
        """One line more, of one of the kinds; a number that JSON cannot hold becomes null."""
        self._lines.append({"kind": kind, "samples_seen": samples_seen, **values})
        if kind != STEP or time.monotonic() - self._flushed >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Give all lines to the system, whole ones only as far as it takes them."""
        self._flushed = time.monotonic()
        if not self._lines:
            return
        text = "".join(f"{_line(each)}\n" for each in self._lines).encode()
        self._lines.clear()
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise environment_failure(error, f"write {self._path}") from error
        self.num_bytes += len(text)

    def close(self) -> None:
        """Flush, and let go of the file."""
        try:
            self.flush()
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise environment_failure(error, f"write {self._path}") from error


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Its lines, in order; one that a killed run left unfinished is left out."""
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and line.endswith(b"\n"):
                yield found


def cut_log(path: Path, samples_seen: int) -> None:
    """Leave what was logged up to a checkpoint. Raises EnvironmentFailure."""
    if not path.exists():
        return
    kept = path.with_name(f".{path.name}.cut")
    try:
        with kept.open("wb") as file:
            for line in read_log(path):
                if line.get("samples_seen", 0) <= samples_seen:
                    file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        kept.replace(path)
    except OSError as error:
        raise environment_failure(error, f"write {path}") from error


def _line(values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(values))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
