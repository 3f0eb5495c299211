"""Runs of a suite as `make bench` writes them, of made times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fovcache.bench.regression.runs import BenchmarkStats, ProcessRun, SuiteRuns

MACHINE = {"cpu": "A CPU", "cores": "4", "kernel": "Linux 6", "python": "CPython 3.11.7", "torch": "2.13.0"}


def made_runs(seconds: Mapping[str, Sequence[float]], **changes: Any) -> SuiteRuns:
    """One process for each place in the sequences; a benchmark's shorter sequence is missing in the last ones."""
    processes = tuple(
        ProcessRun(
            order=number,
            package="fovcache/__init__.py",
            load_average=0.5,
            benchmarks={name: made_stats(values[number]) for name, values in seconds.items() if number < len(values)},
        )
        for number in range(max(map(len, seconds.values())))
    )
    runs = SuiteRuns(
        commit="c" * 40,
        suite="tests/benchmarks",
        suite_digest="d" * 64,
        select=None,
        machine=MACHINE,
        started="2026-01-01T00:00:00+00:00",
        processes=processes,
    )
    return replace(runs, **changes)


def made_stats(min_s: float) -> BenchmarkStats:
    """Of one process: the fastest round is what is compared, and the other figures are far from it."""
    return BenchmarkStats(min_s=min_s, median_s=7.0, mean_s=9.0, stddev_s=1.0, iqr_s=1.0, rounds=5, iterations=1)
