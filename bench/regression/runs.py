"""What processes of a suite measured, as `make bench` writes it and `fovbench compare` reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fovcache.errors import UsageError
from fovcache.typed_json import revive

SCHEMA = 1
STATISTIC = "min_s"
"""What stands for a process: its fastest round. Rounds of one process are not independent, so each process gives one
number; of those the fastest round spreads least and has the fewest outliers on a machine that others use too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkStats:
    """One benchmark in one process, as pytest-benchmark's own JSON says. Seconds are of one call."""

    min_s: float
    """The fastest round."""
    median_s: float
    """Over the rounds."""
    mean_s: float
    """Over the rounds."""
    stddev_s: float
    """Over the rounds."""
    iqr_s: float
    """Over the rounds."""
    rounds: int
    """How many."""
    iterations: int
    """Calls in a round."""

    def __post_init__(self) -> None:
        for name in ("min_s", "median_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; expected a positive number of seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRun:
    """One process of pytest."""

    order: int
    """Its place in time among all that were run for this comparison, of both sides."""
    package: str
    """Where the measured fovcache was loaded from, relative to its side's tree."""
    load_average: float
    """Of the last minute, when it began."""
    benchmarks: Mapping[str, BenchmarkStats]
    """By the test's id. A test that failed once its benchmark was done is among them: it had passed before, so that
    it is most likely a bar of speed that it missed."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Why, by the id of the test, or of the file that could not be collected."""

    @property
    def passed(self) -> tuple[str, ...]:
        """The benchmarks that were measured and whose tests passed."""
        return tuple(name for name in self.benchmarks if name not in self.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRuns:
    """One side: a suite in several processes."""

    commit: str
    """What was measured; ends with ` + changes` for a working tree that differs from its commit."""
    suite: str
    """The file or folder with the benchmarks, relative to the repository."""
    suite_digest: str
    """BLAKE3 of the suite's files: the same names may stand for other work."""
    select: str | None
    """pytest's -k."""
    machine: Mapping[str, str]
    """What must be equal to compare."""
    started: str
    """UTC, ISO 8601."""
    processes: tuple[ProcessRun, ...]
    """In the order in which they were run."""
    schema: int = SCHEMA
    """Of this file."""

    def __post_init__(self) -> None:
        if not self.machine.get("cores", "").partition(",")[0].isdigit():
            raise ValueError(f"cores are {self.machine.get('cores')!r}; expected a number")

    @property
    def names(self) -> list[str]:
        """Every benchmark that any process measured, in the order in which they were met."""
        return list(dict.fromkeys(name for process in self.processes for name in process.benchmarks))

    def values_s(self, name: str) -> np.ndarray:
        """One number for each process that measured the benchmark, float64 [processes]."""
        measured = (process.benchmarks.get(name) for process in self.processes)
        return np.array([getattr(stats, STATISTIC) for stats in measured if stats is not None], np.float64)

    @property
    def num_cores(self) -> int:
        """Cores that the processes could use."""
        return int(self.machine["cores"].partition(",")[0])

    @property
    def failures(self) -> dict[str, tuple[int, str]]:
        """By test or file: in how many processes it failed, and why the first time."""
        found: dict[str, tuple[int, str]] = {}
        for process in self.processes:
            for name, reason in process.failed.items():
                count, first = found.get(name, (0, reason))
                found[name] = count + 1, first
        return found

    def document(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)


def read_runs(path: Path) -> SuiteRuns:
    """The runs in a file. Raises UsageError for what is none."""
    expected = "expected what `make bench OUT=FILE` writes"
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict) or "processes" not in document:
            kind = "pytest-benchmark's own JSON, of one process" if _is_of_one(document) else "something else"
            raise UsageError(f"{path} holds {kind}; {expected}")
        if document.get("schema") != SCHEMA:
            raise UsageError(f"{path} is of schema {document.get('schema')!r}; this fovbench reads {SCHEMA}")
        runs: SuiteRuns = revive(SuiteRuns, document)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; {expected}") from error
    except UsageError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a file of runs: {error}; {expected}") from error
    return runs


def _is_of_one(document: Any) -> bool:
    return isinstance(document, Mapping) and isinstance(document.get("benchmarks"), Sequence)
