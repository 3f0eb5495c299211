"""`fovbench compare`: what it says of two files, what it refuses, and with which status it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import MACHINE, made_runs
from scipy import stats

from fovcache.bench.regression.comparison import Comparison, Row, compare
from fovcache.bench.regression.machine import machine
from fovcache.bench.regression.runs import SuiteRuns, read_runs
from fovcache.errors import UsageError

EVEN = [1.00 + 0.01 * number for number in range(10)]
"""Median 1.045, and at most 9 % apart."""
CLOSE = [1.000 + 0.001 * number for number in range(10)]


def slower(ratio: float, values: list[float] = EVEN) -> list[float]:
    return [value * ratio for value in values]


def compared(base: list[float], head: list[float]) -> Row:
    (row,) = compare(made_runs({"a": base}), made_runs({"a": head})).rows
    return row


def write(runs: SuiteRuns, path: Path) -> Path:
    path.write_text(json.dumps(runs.document()))
    return path


def fovbench(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fovcache.bench.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_figures_are_those_of_scipy_and_of_all_pairs() -> None:
    head = slower(1.2)
    row = compared(EVEN, head)
    expected = stats.mannwhitneyu(head, EVEN, method="exact")
    assert row.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert row.p == pytest.approx(2 / 184_756)  # every one of HEAD's is the larger: one of C(20, 10) orders, twice
    assert row.delta == 1
    assert row.ratio == pytest.approx(sorted(h / b for h in head for b in EVEN)[50], rel=0.002)
    assert row.low is not None
    assert row.high is not None
    assert 1.1 < row.low < row.ratio < row.high < 1.3
    assert (row.base_s, row.num_base, row.num_head) == (pytest.approx(1.045), 10, 10)
    assert row.verdict == "slower"


@pytest.mark.parametrize(
    ("head", "verdict", "status"),
    [
        (slower(1.15), "slower", 1),
        (slower(1.3)[:5] + EVEN[5:], "alike", 0),  # large, and as likely by chance
        (EVEN, "alike", 0),
        (slower(1 / 1.2), "faster", 0),
    ],
)
def test_an_alarm_is_significant_and_large(head: list[float], verdict: str, status: int) -> None:
    comparison = compare(made_runs({"a": EVEN}), made_runs({"a": head}))
    assert (comparison.rows[0].verdict, comparison.exit_status) == (verdict, status)


@pytest.mark.parametrize(("ratio", "verdict"), [(1.09, "a little slower"), (1 / 1.09, "a little faster")])
def test_significant_and_small_is_said_and_no_alarm(ratio: float, verdict: str) -> None:
    comparison = compare(made_runs({"a": CLOSE}), made_runs({"a": slower(ratio, CLOSE)}))
    assert (comparison.rows[0].verdict, comparison.exit_status) == (verdict, 0)


def test_the_slowest_comes_first_and_what_one_side_lacks_is_named() -> None:
    base = made_runs({"gone": EVEN, "a": EVEN, "b": EVEN})
    head = made_runs({"a": EVEN, "b": slower(1.5), "new": slower(9)})
    comparison = compare(base, head)
    assert [row.name for row in comparison.rows] == ["b", "a"]
    assert (comparison.only_base, comparison.only_head) == (("gone",), ("new",))
    assert comparison.slower == ("b",)
    alike = compare(made_runs({"gone": EVEN, "a": EVEN}), made_runs({"a": EVEN, "new": EVEN}))
    assert alike.exit_status == 0


def test_a_benchmark_that_broke_in_some_processes_has_no_verdict() -> None:
    (b, a) = compare(made_runs({"a": EVEN, "b": EVEN}), made_runs({"a": slower(2)[:9], "b": EVEN})).rows
    assert (a.verdict, a.ratio, a.num_head) == ("too few", None, 9)
    assert b.verdict == "alike"


def test_notes_say_what_makes_the_figures_doubtful() -> None:
    def notes(head: SuiteRuns) -> str:
        return "\n".join(compare(made_runs({"a": EVEN}), head).notes)

    head = made_runs({"a": EVEN})
    assert notes(head) == ""
    assert "one after the other" in notes(replace(head, started="2026-01-02T00:00:00+00:00"))
    assert "files differ" in notes(replace(head, suite_digest="e" * 64))
    busy = tuple(replace(process, load_average=6.0) for process in head.processes)
    assert "a load of 0.5 and 6.0 on 4 cores" in notes(replace(head, processes=busy))
    failing = (replace(head.processes[0], failed={"a": "AssertionError: 3 s"}), *head.processes[1:])
    assert "a failed in 1 of 10 processes of HEAD: AssertionError: 3 s" in notes(replace(head, processes=failing))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (made_runs({"a": EVEN}, machine=MACHINE | {"cpu": "B CPU"}), "cpu 'A CPU' and 'B CPU'"),
        (made_runs({"a": EVEN}, machine=MACHINE | {"governor": "powersave"}), "governor 'unsaid' and 'powersave'"),
        (made_runs({"a": EVEN[:9]}), "HEAD has 9 processes; expected at least 10 a side"),
        (made_runs({"b": EVEN}), "no benchmark in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(head: SuiteRuns, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        compare(made_runs({"a": EVEN}), head)
    assert said in str(caught.value)
    with pytest.raises(UsageError):
        compare(head, made_runs({"a": EVEN}))


def test_this_machine_is_itself_and_names_no_host() -> None:
    import platform

    found = machine()
    assert found == machine()
    assert found["python"].endswith(platform.python_version())
    assert {"cpu", "cores", "memory", "kernel", "governor", "torch", "numpy"} <= found.keys()
    assert platform.node() not in found.values()


def test_runs_come_back_from_their_file(tmp_path: Path) -> None:
    runs = made_runs({"a": EVEN, "b": EVEN[:4]})
    assert read_runs(write(runs, tmp_path / "runs.json")) == runs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a file of runs"),
        ("[]", "something else"),
        ('{"benchmarks": [], "machine_info": {}}', "pytest-benchmark's own JSON, of one process"),
        ('{"processes": [], "schema": 2}', "schema 2"),
        ('{"processes": [], "schema": 1}', "is not a file of runs"),
    ],
)
def test_another_file_is_named_for_what_it_is(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_runs(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, "1", None])
def test_times_are_positive_numbers(value: Any, tmp_path: Path) -> None:
    document = made_runs({"a": EVEN}).document()
    document["processes"][3]["benchmarks"]["a"]["min_s"] = value
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError):
        read_runs(path)


def test_the_command(tmp_path: Path, root: Path) -> None:
    base = write(made_runs({"a": EVEN, "b": EVEN}), tmp_path / "base.json")
    head = write(made_runs({"a": slower(1.2), "b": EVEN}), tmp_path / "head.json")
    done = fovbench(root, "compare", base, head, "--json", tmp_path / "out.json")
    assert done.returncode == 1, done
    assert "slower (p < 0.002 and more than 10%): a" in done.stdout
    assert "1.1e-05" in done.stdout
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["slower"] == ["a"]
    assert document["bars"] == {"alpha": 0.002, "slower": 1.1, "min_processes": 10}
    other = write(made_runs({"a": EVEN}, machine=MACHINE | {"torch": "2.14.0"}), tmp_path / "other.json")
    refused = fovbench(root, "compare", base, other)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [refused.stderr.strip()]
    assert "torch '2.13.0' and '2.14.0'" in refused.stderr


def test_documents_hold_every_row() -> None:
    comparison: Comparison = compare(made_runs({"a": EVEN}), made_runs({"a": slower(1.2)}))
    document = json.loads(json.dumps(comparison.document()))
    assert document["rows"][0]["verdict"] == "slower"
    assert document["rows"][0]["ratio"] == pytest.approx(1.2, rel=0.01)
