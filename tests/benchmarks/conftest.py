"""What the benchmarks share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def has_bars() -> bool:
    """Whether a test is to fail when it is too slow; not where `fovbench check` and `make bench` compare times."""
    return "FOVBENCH_REPORT" not in os.environ
