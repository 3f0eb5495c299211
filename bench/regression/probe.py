"""A plugin of pytest for one measured process: which benchmarks to run, and what became of them.

It is copied out of this folder and loaded by its file's name, since the package that is measured may be one that has
no such file. What it writes goes beside pytest-benchmark's own JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

WANTED, REPORT = "FOVBENCH_WANTED", "FOVBENCH_REPORT"
"""Environment: a JSON list of the benchmarks to run, all without it; where the report is written."""

_failed: dict[str, str] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not wanted."""
    path = os.environ.get(WANTED)
    if path is None:
        return
    wanted = set(json.loads(Path(path).read_text()))
    left_out = [item for item in items if item.nodeid not in wanted]
    items[:] = [item for item in items if item.nodeid in wanted]
    config.hook.pytest_deselected(items=left_out)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Keep why a file could not be collected."""
    if report.failed:
        _failed[report.nodeid] = _reason(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep why a test failed; the first reason of several."""
    if report.failed:
        _failed.setdefault(report.nodeid, _reason(report))


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """Nothing: whoever started the process knows the machine, and to ask the CPU for its name takes long."""
    return {}


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, Any]:
    """Nothing, as above."""
    return {}


def pytest_sessionfinish() -> None:
    """Write what failed, and which fovcache was measured."""
    import fovcache

    Path(os.environ[REPORT]).write_text(json.dumps({"package": fovcache.__file__, "failed": _failed}))


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash is not None else report.longrepr).strip().splitlines()
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason given"])[0]
