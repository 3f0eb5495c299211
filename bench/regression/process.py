"""One process of pytest over a suite: started with a tree's package, its numbers read from pytest-benchmark's JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fovcache.errors import EnvironmentFailure, UsageError

from . import probe
from .machine import machine
from .runs import BenchmarkStats, ProcessRun, SuiteRuns
from .trees import PACKAGE, suite_digest

_PROBE = "fovbench_probe"
PLUGINS = ("pytest_benchmark.plugin", _PROBE)
"""All that is loaded of what is installed: another plugin could change what is measured, or by whom."""
LEFT_OUT = "not needs_cuda and not slow"
"""pytest's -m: marks of what is not measured process by process."""
_TIMEOUT_S = 3600
_NONE_COLLECTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What every process runs."""

    path: str
    """A file or folder, relative to the tree."""
    select: str | None = None
    """pytest's -k."""
    max_time_s: float = 0.25
    """Seconds that pytest-benchmark spends on a benchmark, unless that says itself how often it is to be run."""
    plugins: tuple[str, ...] = ()
    """Further plugins of pytest, by the names of files in the suite's folder."""


class Runner:
    """Starts processes over one suite, each with the package of a tree. `scratch` is a folder of its own."""

    def __init__(self, suite: Suite, scratch: Path, config: Path) -> None:
        """`config` is the file that configures pytest for both sides; none if it does not exist."""
        if importlib.util.find_spec("pytest_benchmark") is None:
            raise UsageError("pytest-benchmark is not installed: `pip install 'fovcache[dev]'`")
        self.suite = suite
        """What is run."""
        self._scratch = scratch
        self._config = config if config.is_file() else Path(os.devnull)
        self._num_started = 0
        (scratch / "plugins").mkdir(parents=True)
        shutil.copyfile(probe.__file__, scratch / "plugins" / f"{_PROBE}.py")

    def run(
        self, tree: Path, *, wanted: Sequence[str] | None = None, environment: Mapping[str, str] = {}
    ) -> ProcessRun:
        """Measure once, with further variables in the environment; with `wanted` only those benchmarks.

        Raises UsageError when no benchmark is there, EnvironmentFailure when the process breaks.
        """
        order, self._num_started = self._num_started, self._num_started + 1
        load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        stats, report, log = (self._scratch / name for name in ("stats.json", "report.json", "log.txt"))
        for path in (stats, report):
            path.unlink(missing_ok=True)
        own = dict(environment) | {probe.REPORT: str(report)}
        if wanted is not None:
            own[probe.WANTED] = str(self._scratch / "wanted.json")
            Path(own[probe.WANTED]).write_text(json.dumps(list(wanted)))
        with log.open("wb") as output:
            command = self._command(tree, stats, wanted)
            status = _call(command, tree, self._environment(tree) | own, output)
        if status == _NONE_COLLECTED or (report.exists() and not stats.exists() and not _failed(report)):
            raise UsageError(
                f"no benchmark in {self.suite.path} is left to run (-k {self.suite.select!r}, -m {LEFT_OUT!r}); "
                "expected tests that take the `benchmark` fixture"
            )
        if not report.exists():
            raise EnvironmentFailure(f"pytest ended with status {status} before the suite did: {_last_lines(log)}")
        return ProcessRun(
            order=order,
            package=_package_in(tree, report),
            load_average=round(load_average, 2),
            benchmarks=_stats(stats),
            failed=_failed(report),
        )

    def _command(self, tree: Path, stats: Path, wanted: Sequence[str] | None) -> list[str]:
        suite = self.suite
        paths = [suite.path] if wanted is None else list(dict.fromkeys(name.partition("::")[0] for name in wanted))
        command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-o", "addopts=", "-m", LEFT_OUT]
        command += ["-c", str(self._config), "--rootdir", str(tree), "--basetemp", str(self._scratch / "basetemp")]
        command += [part for name in ("no:cacheprovider", *PLUGINS, *suite.plugins) for part in ("-p", name)]
        command += ["--continue-on-collection-errors", "--benchmark-only"]
        command += [f"--benchmark-json={stats}", f"--benchmark-max-time={suite.max_time_s}"]
        command += ["-k", suite.select] if suite.select else []
        return [*command, *paths]

    def _environment(self, tree: Path) -> dict[str, str]:
        """Ours, with the tree's package before any other, and with no plugin that is not named."""
        found = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        suite = tree / self.suite.path
        folder = suite if suite.is_dir() else suite.parent
        further = [str(folder)] if self.suite.plugins else []
        earlier = [found["PYTHONPATH"]] if found.get("PYTHONPATH") else []
        path = os.pathsep.join([str(tree), str(self._scratch / "plugins"), *further, *earlier])
        return found | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def warmed_up(runner: Runner, tree: Path, environment: Mapping[str, str] = {}) -> list[str]:
    """The names of a tree's benchmarks, after a first process that is dropped. Raises UsageError when one fails."""
    run = runner.run(tree, environment=environment)
    if run.failed:
        shown = "; ".join(f"{name}: {reason}" for name, reason in run.failed.items())
        raise UsageError(
            f"benchmarks fail in the working tree, {len(run.failed)} in all: {shown}; expected all to pass; mend them, "
            "or leave them out with --select"
        )
    return list(run.benchmarks)


def gathered(suite: Suite, tree: Path, commit: str, started: str, processes: Sequence[ProcessRun]) -> SuiteRuns:
    """One side's runs, with what they were measured on and with. The suite's files are those in `tree`."""
    return SuiteRuns(
        commit=commit,
        suite=suite.path,
        suite_digest=suite_digest(tree, suite.path),
        select=suite.select,
        machine=machine(),
        started=started,
        processes=tuple(processes),
    )


def now() -> str:
    """The time, as runs keep it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _call(command: Sequence[str], cwd: Path, environment: dict[str, str], output: Any) -> int:
    """Run a command; whatever ends us ends it too, with all that it started."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailure(f"a process over the suite took longer than {_TIMEOUT_S} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _package_in(tree: Path, report: Path) -> str:
    """Where in the tree the measured package lies. Raises EnvironmentFailure for that of another tree."""
    package, whole = Path(json.loads(report.read_text())["package"]).resolve(), tree.resolve()
    if whole not in package.parents:
        raise EnvironmentFailure(
            f"the process measured {package}, not the {PACKAGE} of {tree}: something puts another one first on the "
            "path; look at PYTHONPATH and at the suite's conftest.py"
        )
    return package.relative_to(whole).as_posix()


def _failed(report: Path) -> dict[str, str]:
    return {str(name): str(reason) for name, reason in json.loads(report.read_text())["failed"].items()}


def _stats(path: Path) -> dict[str, BenchmarkStats]:
    if not path.exists():
        return {}
    return {each["fullname"]: _of_one(each["stats"]) for each in json.loads(path.read_text())["benchmarks"]}


def _of_one(stats: dict[str, Any]) -> BenchmarkStats:
    seconds = {f"{name}_s": float(stats[name]) for name in ("min", "median", "mean", "stddev", "iqr")}
    return BenchmarkStats(rounds=int(stats["rounds"]), iterations=int(stats["iterations"]), **seconds)


def _last_lines(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
