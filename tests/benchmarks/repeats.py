"""A plugin of pytest that makes benchmarks slower by real work: what is called once is called several times.

Both sides of a comparison load it. A benchmark is called FOVBENCH_REPEATS times a round, and the one named by
FOVBENCH_SLOWED FOVBENCH_SLOWED_REPEATS times: 23 instead of 20 are exactly 15 % more of the same work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

_call = BenchmarkFixture.__call__


def pytest_configure(config: pytest.Config) -> None:
    BenchmarkFixture.__call__ = _repeating


def pytest_unconfigure(config: pytest.Config) -> None:
    BenchmarkFixture.__call__ = _call


def _repeating(fixture: BenchmarkFixture, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    is_slowed = fixture.fullname == os.environ.get("FOVBENCH_SLOWED")
    repeats = range(int(os.environ["FOVBENCH_SLOWED_REPEATS" if is_slowed else "FOVBENCH_REPEATS"]))

    def repeated(*arguments: Any, **named: Any) -> Any:
        for _ in repeats:
            result = function(*arguments, **named)
        return result

    return _call(fixture, repeated, *arguments, **named)
