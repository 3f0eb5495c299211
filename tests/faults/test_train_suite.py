"""Suites of training runs: one that is killed, stopped, gone on with, changed; and the command that does them."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

import fovcache
from fovcache.bench.cli import app
from fovcache.errors import UsageError
from fovcache.probes.train.result import BASE, DONE, FAILED, RESULT_FILE, STOPPED, Plan, Run, read_suite
from fovcache.probes.train.suite.page import PAGE_FILE
from fovcache.probes.train.suite.runs import run_suite
from fovcache.probes.train.suite.suite_config import Only, SuiteConfig, read_suite_config

CONFIG = """
cache = "cache"
seeds = 1
device = "cpu"
[model]
kind = "projection"
layers = 2
[train]
samples = {samples}
batch_size = 8
learning_rate = 1e-2
evaluate_every = 4000
validation_samples = 10
checkpoint_every = 2000
keep = 1
[arms.coarse.model]
layers = 1
"""
SHORT, LONG = 16_000, 10**6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """With a cache of a few labelled pictures."""
    folder = tmp_path_factory.mktemp("suite")
    fovcache.open(folder / "cache").build(str(make_images(folder / "images", 40, ["a", "b"])), encoder="pixels")
    return folder


@pytest.fixture
def read(folder: Path) -> Callable[..., SuiteConfig]:
    def read(samples: int = SHORT, text: str = "") -> SuiteConfig:
        path = folder / "conf.toml"
        path.write_text(CONFIG.format(samples=samples) + text)
        return read_suite_config(path)

    return read


def own_processes() -> list[psutil.Process]:
    """Those of this one that train."""
    every = psutil.Process().children(recursive=True)
    return [each for each in every if "fovcache.probes.train.suite.worker" in " ".join(each.cmdline())]


@contextmanager
def killing(folder: Path) -> Iterator[None]:
    """Kill the process of the run in a folder when it has a checkpoint."""
    is_over = threading.Event()

    def kill() -> None:
        while not any((folder / "checkpoints").glob("samples-*[0-9]")) and not is_over.wait(0.001):
            pass
        for process in own_processes():
            os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def states(runs: tuple[Run, ...]) -> dict[str, str]:
    return {run.arm: run.state for run in runs}


def test_a_killed_run_is_shown_and_gone_on_with(
    read: Callable[..., SuiteConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    config = read()
    planned: dict[str, Plan] = {}
    with killing(out / "base/seed-0"), caplog.at_level(logging.WARNING, "fovcache"):
        suite = run_suite(config, out, on_plan=lambda cell, plan: planned.update({str(cell): plan}))
    assert list(planned) == ["base, seed 0", "coarse, seed 0"]  # the first one, too, which did not come to its end
    assert planned["coarse, seed 0"] == suite.runs[1].plan
    assert states(suite.runs) == {BASE: FAILED, "coarse": DONE}
    assert suite.exit_status == 1
    killed = suite.runs[0]
    assert "was ended by SIGKILL" in killed.reason
    assert 2000 <= killed.samples_seen < SHORT
    assert f"its last checkpoint is of {killed.samples_seen:,} samples" in killed.reason
    assert "base, seed 0 failed" in caplog.text
    assert "failed: the process that ran it was ended by SIGKILL" in (out / PAGE_FILE).read_text()
    assert read_suite(out / RESULT_FILE).runs == suite.runs
    assert suite.verdict is not None
    assert not suite.verdict.helps

    with pytest.raises(UsageError, match=r"base/seed-0 holds a run that is not finished .*--resume"):
        run_suite(config, out)
    other = read(SHORT, "[arms.wide.model]\nhidden = 9\n[control]\nsplit.train = 'x'")
    with pytest.raises(UsageError, match=r"base/seed-0: .*train.samples was 16000 .* and is 1000000 now"):
        run_suite(read(LONG), out, resume=True)
    with pytest.raises(UsageError, match="the dataset has no split 'x'"):  # before anything is begun
        run_suite(other, out, resume=True)
    assert not (out / "wide").exists()

    told: list[str] = []
    resumed = run_suite(config, out, resume=True, on_progress=lambda progress: told.append(progress.note))
    assert states(resumed.runs) == {BASE: DONE, "coarse": DONE}
    assert resumed.runs[0].num_resumed == 1
    assert resumed.runs[1] == suite.runs[1]
    assert not any(note.startswith("coarse") for note in told)  # it was done
    again = run_suite(config, out)
    assert again.runs == resumed.runs
    assert (again.exit_status, again.dataset, again.data["kind"]) == (0, "images", "cached")


def test_the_command_is_terminated_and_says_how_to_go_on(
    folder: Path, read: Callable[..., SuiteConfig], tmp_path: Path
) -> None:
    read(LONG)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fovcache.bench.cli", "train", str(folder / "conf.toml"), "--out", str(out)]
    process = subprocess.Popen([*command, "--arm", BASE], stdout=PIPE, stderr=PIPE, text=True)
    try:
        wait_for(lambda: any((out / "base/seed-0/checkpoints").glob("samples-*")), process)
        training = own_processes()
        process.send_signal(signal.SIGTERM)
        shown, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert shown.startswith("base, seed 0: 125,000 steps, planned ")
    assert "of disk at most, " in shown.splitlines()[0]
    assert said.splitlines()[-1].startswith("error: terminated; runs that are done are kept")
    assert "--resume" in said
    (run,) = read_suite(out / RESULT_FILE).runs
    assert (run.state, run.reason[:7]) == (STOPPED, "SIGTERM")
    assert (out / f"base/seed-0/checkpoints/samples-{run.samples_seen:09d}").is_dir()
    assert len(training) == 1
    assert not training[0].is_running()


def test_a_plan_trains_nothing_and_leaves_nothing(
    folder: Path, read: Callable[..., SuiteConfig], tmp_path: Path
) -> None:
    read(LONG)
    document = tmp_path / "plan.json"
    command = ["train", str(folder / "conf.toml"), "--out", str(tmp_path / "out"), "--plan", "--json", str(document)]
    done = CliRunner().invoke(app, [*command, "--arm", "coarse"], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "all 1 runs: " in done.stdout
    found: dict[str, Any] = json.loads(document.read_bytes())
    (run,) = found["runs"]
    assert (run["arm"], run["plan"]["steps"], run["samples_seen"]) == ("coarse", LONG // 8, 0)
    assert run["plan"]["spent"]["compute_s"] > 0
    assert not (tmp_path / "out").exists()


def test_plans_are_not_among_json(folder: Path, read: Callable[..., SuiteConfig], tmp_path: Path) -> None:
    read(80)
    command = ["train", str(folder / "conf.toml"), "--out", str(tmp_path / "out"), "--arm", BASE, "--json"]
    done = CliRunner().invoke(app, [*command, "-"], catch_exceptions=False)
    (run,) = json.loads(done.stdout)["runs"]
    assert run["plan"]["steps"] == 10


def test_what_every_run_lacks_is_said_in_a_line(read: Callable[..., SuiteConfig], tmp_path: Path) -> None:
    config = read(SHORT, "[inputs.features]\nlayer = 'blocks.7'")
    for only in (Only(), Only(arms=(BASE,))):
        with pytest.raises(UsageError, match="fovcache build") as raised:
            run_suite(config, tmp_path / "out", only=only)
        assert "\n" not in str(raised.value)
        assert not [path for path in tmp_path.rglob("*") if path.name not in (".lock", "out", BASE, "seed-0")]


def test_a_folder_of_something_else_is_left_alone(read: Callable[..., SuiteConfig], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds something else"):
        run_suite(read(), tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        run_suite(read(), tmp_path / "letter.txt")
    with pytest.raises(UsageError, match="0 jobs"):
        run_suite(read(), tmp_path, jobs=0)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_torchrun_does_one_run(
    read: Callable[..., SuiteConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun's processes do one run together, and 2 are wanted"):
        run_suite(read(), tmp_path / "out")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise AssertionError("waited in vain")
