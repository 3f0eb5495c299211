"""The log: one line a step, whole lines only, and nothing twice after a run went on from a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import EnvironmentFailure
from fovcache.probes.train.stepping.log import EVALUATION, STEP, RunLog, cut_log, read_log


def test_lines_are_as_they_were_given(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.add(STEP, 8, {"step": 1, "values": {"loss": 0.5, "none": float("nan")}, "rate": float("inf")})
    log.add(EVALUATION, 8, {"values": {"loss": 0.25}})
    log.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "step", "samples_seen": 8, "step": 1, "values": {"loss": 0.5, "none": None}, "rate": None},
        {"kind": "evaluation", "samples_seen": 8, "values": {"loss": 0.25}},
    ]
    assert log.num_bytes == (tmp_path / "log.jsonl").stat().st_size


def test_a_killed_run_loses_only_lines_of_the_last_second(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from fovcache.probes.train.stepping.log import EVALUATION, STEP, RunLog
log = RunLog(Path(sys.argv[1]))
for step in range(3):
    log.add(STEP, step, {})
log.add(EVALUATION, 2, {})
log.add(STEP, 3, {})
time.sleep(1.1)
log.add(STEP, 4, {})
log.add(STEP, 5, {})
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "log.jsonl"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert [line["samples_seen"] for line in read_log(path)] == [0, 1, 2, 2, 3, 4]


@given(num=st.integers(0, 20), cut_at=st.integers(-1, 25), torn=st.binary(max_size=30).filter(lambda b: b"\n" not in b))
def test_going_on_has_each_step_once(
    tmp_path_factory: pytest.TempPathFactory, num: int, cut_at: int, torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    log = RunLog(path)
    for step in range(num):
        log.add(STEP, step, {"values": {"loss": 1 / (step + 1)}})
    log.close()
    with path.open("ab") as file:
        file.write(torn)  # as a killed run leaves it
    cut_log(path, cut_at)
    again = RunLog(path)
    for step in range(max(0, min(num, cut_at + 1)), 30):
        again.add(STEP, step, {"values": {"loss": 1 / (step + 1)}})
    again.close()
    assert [line["samples_seen"] for line in read_log(path)] == list(range(30))
    assert all(line["values"]["loss"] == 1 / (line["samples_seen"] + 1) for line in read_log(path))


def test_no_log_is_nothing_to_cut(tmp_path: Path) -> None:
    cut_log(tmp_path / "log.jsonl", 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said() -> None:
    log = RunLog(Path("/dev/full"))
    with pytest.raises(EnvironmentFailure, match="the disk is full"):
        log.add(EVALUATION, 0, {})
    with pytest.raises(EnvironmentFailure):
        log.close()
