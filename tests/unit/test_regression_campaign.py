"""The campaign of real comparisons: what it runs, how it goes on, what it counts; its slowdown is real work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fovcache.bench.regression.campaign import Campaign, _begin, _mend
from fovcache.bench.regression.campaign_tally import read_lines, tally
from fovcache.errors import UsageError

SUITE = "tests/benchmarks/test_hot_paths.py"
COUNTING = """
import pathlib
count = [0]

def work(step):
    count[0] += step
    return count[0]

def test_count(benchmark):
    pathlib.Path("counted").write_text(str(benchmark(work, 1)))
"""


def campaign(equal: int = 4, slowed: int = 2, slowdown: float = 1.15) -> Campaign:
    return Campaign(equal=equal, slowed=slowed, slowdown=slowdown, suite=SUITE, max_time_s=0.02)


def test_a_part_is_a_sample_of_both_kinds() -> None:
    assert campaign().ids == ["equal 0", "slowed 0", "equal 1", "equal 2", "slowed 1", "equal 3"]
    assert len(set(campaign(200, 100).ids)) == 300
    assert campaign(2, 0).ids == ["equal 0", "equal 1"]


def test_a_slowdown_is_whole_calls() -> None:
    assert campaign().slowed_repeats == 23
    with pytest.raises(UsageError, match=r"slower by 1\.01; expected"):
        campaign(slowdown=1.01)


@pytest.mark.parametrize(("slowed", "calls"), [("test_count.py::test_count", 23), ("test_count.py::test_other", 20)])
def test_the_plugin_repeats_the_work(slowed: str, calls: int, tmp_path: Path, root: Path) -> None:
    (tmp_path / "test_count.py").write_text(COUNTING)
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-disable", "-p", "pytest_benchmark.plugin"]
    own = {"FOVBENCH_REPEATS": "20", "FOVBENCH_SLOWED": slowed, "FOVBENCH_SLOWED_REPEATS": "23"}
    own |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(root / "tests/benchmarks")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | own
    subprocess.run([*command, "-p", "repeats", "test_count.py"], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert int((tmp_path / "counted").read_text()) == calls


def test_what_a_kill_cut_short_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "lane-0.jsonl"
    path.write_text('{"id": "equal 0"}\n{"id": "equ')
    assert [line["id"] for line in read_lines(tmp_path)] == ["equal 0"]
    _mend(path)
    assert path.read_text() == '{"id": "equal 0"}\n'
    _mend(tmp_path / "lane-1.jsonl")


def test_a_folder_of_another_campaign_is_refused(root: Path, tmp_path: Path) -> None:
    _begin(root, tmp_path / "out", campaign())
    _begin(root, tmp_path / "out", campaign())
    with pytest.raises(UsageError, match="another campaign"):
        _begin(root, tmp_path / "out", campaign(slowdown=1.2))


def test_alarms_are_counted(tmp_path: Path) -> None:
    def line(slowed: str, first: list[str], alarms: list[str], ratio: float = 1.0) -> str:
        rows = {name: {"ratio": ratio if name == slowed else 1.01, "p": 0.5, "base_s": 1.0} for name in ("a", "b")}
        said = {"id": "x", "slowed": slowed, "first_alarms": first, "alarms": alarms, "unsure": [], "wall_s": 30.0}
        return json.dumps(said | {"first": rows, "confirmation": rows if alarms else {}}) + "\n"

    equal = [line("", ["a"], []), *[line("", [], [])] * 98, line("", ["b"], ["b"])]
    slowed = [line("a", ["a"], ["a"], 1.15), line("a", ["a"], ["a"], 1.2), line("b", [], [], 1.1), line("b", ["a"], [])]
    (tmp_path / "lane-0.jsonl").write_text("".join(equal))
    (tmp_path / "lane-1.jsonl").write_text("".join(slowed))
    said = list(tally(tmp_path))
    # Clopper and Pearson's interval of 1 in 100 is in every table.
    assert (
        "check: false alarms, in comparisons of equal sides: 1 of 100 (0.0% to 5.4% by Clopper and Pearson, 95 %)"
        in said
    )
    assert any(each.startswith("check: slowdowns caught: 2 of 4") for each in said)
    assert any(each.startswith("check: false alarms on the other benchmarks of those: 0 of 4") for each in said)
    assert any(each.startswith("compare alone: false alarms, in comparisons of equal sides: 2 of 100") for each in said)
    assert any(each.startswith("compare alone: false alarms on the other benchmarks of those: 1 of 4") for each in said)
    assert "52.0 lane minutes" in said
