"""`fovbench ablate` killed, run twice at a time, and given folders that it must not or cannot write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from signal_cache import build_signal_cache, write_images

from fovcache.bench.cli import app
from fovcache.console import run_command
from fovcache.errors import DamageError, UsageError
from fovcache.probes.config import read_config
from fovcache.probes.result import Ablation, read_ablation
from fovcache.probes.run import run_ablation
from fovcache.probes.running.result_folder import open_folder

CONFIG = """
cache = "cache"
seeds = 4
representations = ["simple_stats", "stats", "spectral"]
[experiments]
all = ["**"]
shown = ["signal"]
hidden = ["noise.*"]
"""
TRAINED = """
cache = "cache"
seeds = 2
representations = ["simple_stats"]
[head]
kind = "linear"
epochs = 3
[controls]
shuffled_labels = false
"""
NUM_CELLS = 3 * 4 * (2 * 7 + 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache and `many.toml`, of many cells, and `few.toml`."""
    folder = tmp_path_factory.mktemp("made")
    build_signal_cache(folder, write_images(folder / "images"))
    (folder / "many.toml").write_text(CONFIG)
    few = 'cache = "cache"\nseeds = 2\nrepresentations = ["stats"]\nsingle_layers = false\n'
    (folder / "few.toml").write_text(few)
    (folder / "trained.toml").write_text(TRAINED)
    return folder


@pytest.fixture
def ablate(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """`ablate("few", out, …)` runs the command in this process alone: status, standard output, standard error."""

    def run(config: str, out: Path, *options: object) -> tuple[int, str, str]:
        command = ["fovbench", "ablate", made / f"{config}.toml", "--out", out, "--no-isolate", *options]
        monkeypatch.setattr("sys.argv", [str(word) for word in command])
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with pytest.raises(SystemExit) as left:
                run_command(app)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def numbers(path: Path) -> Ablation:
    """What an ablation wrote, without times and where it ran."""
    ablation = read_ablation(path / "ablation.json")
    trials = tuple(replace(trial, seconds=0.0) for trial in ablation.trials)
    return replace(ablation, trials=trials, environment={})


def lines(out: Path) -> list[bytes]:
    """The finished trials' lines."""
    path = out / "trials.jsonl"
    return (
        [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from fovcache.probes.config import read_config
from fovcache.probes.run import run_ablation

def show(progress):
    if progress.done == 4:
        print(*(child.pid for child in __import__("psutil").Process().children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

run_ablation(read_config(Path(sys.argv[1])), Path(sys.argv[2]), show, isolate=True)
"""


@pytest.mark.parametrize("name", ["many", "trained"])
def test_killed_and_run_again_only_what_is_missing_is_run_and_the_end_is_the_same(
    made: Path, tmp_path: Path, name: str
) -> None:
    path, out = made / f"{name}.toml", tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = lines(out)
    assert len(kept) == 4
    assert not (out / "ablation.json").exists()
    (worker,) = (int(word) for word in done.stdout.split())
    wait_until(lambda: is_gone(worker))  # it notices
    whole = run_ablation(read_config(path), tmp_path / "whole")
    run_ablation(read_config(path), out)
    assert lines(out)[:4] == kept
    assert len(lines(out)) == len(whole.trials)
    assert numbers(out) == numbers(tmp_path / "whole")
    for stored in (tmp_path / "whole").glob("predictions/*"):
        assert (out / "predictions" / stored.name).read_bytes() == stored.read_bytes()
    assert {each.name for each in out.iterdir()} == {each.name for each in (tmp_path / "whole").iterdir()}


def is_gone(pid: int) -> bool:
    """Also where nobody asks an orphan how it ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("kept", [1, 9, 200])
def test_half_a_line_is_cut_off_and_its_trial_run_again(made: Path, tmp_path: Path, kept: int) -> None:
    out = tmp_path / "out"
    config = read_config(made / "few.toml")
    run_ablation(config, out)
    before, whole = lines(out), numbers(out)
    (out / "trials.jsonl").write_bytes(b"".join(before[:-1]) + before[-1][:kept])
    (out / "ablation.json").unlink()
    run_ablation(config, out)
    assert lines(out)[:-1] == before[:-1]
    assert len(lines(out)) == len(before)
    assert numbers(out) == whole


def test_a_damaged_line_is_named_and_nothing_is_lost(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_ablation(read_config(made / "few.toml"), out)
    damaged = lines(out)[0] + lines(out)[1].replace(b'"seed":', b'"sead":') + b"".join(lines(out)[2:])
    (out / "trials.jsonl").write_bytes(damaged)
    with pytest.raises(DamageError, match=r"line 2 of .*trials.jsonl is not what"):
        run_ablation(read_config(made / "few.toml"), out)
    assert (out / "trials.jsonl").read_bytes() == damaged


def test_two_at_a_time_on_one_folder_are_refused(ablate: Callable[..., Any], tmp_path: Path) -> None:
    with open_folder(tmp_path / "out"):
        status, out, err = ablate("few", tmp_path / "out")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "another process is writing to --out" in err
    assert ablate("few", tmp_path / "out")[0] == 0


def test_a_folder_with_something_else_in_it_is_left_alone(ablate: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "theirs").mkdir()
    for text in ("theirs", '{"loss": 3}\n'):
        (tmp_path / "theirs" / "trials.jsonl").write_text(text)
        status, _, err = ablate("few", tmp_path / "theirs")
        assert status in (1, 2)
        assert "is not what `fovbench ablate` writes" in err
        assert (tmp_path / "theirs" / "trials.jsonl").read_text() == text
    status, _, err = ablate("few", tmp_path / "mine")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds something else" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("out", "status", "said"),
    [
        ("file", 2, "is a file, expected a folder"),
        ("file/below", 3, "cannot write"),
        ("/proc/nowhere/out", 3, "cannot write /proc/nowhere/out"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(
    ablate: Callable[..., Any], tmp_path: Path, out: str, status: int, said: str
) -> None:
    (tmp_path / "file").write_text("mine")
    found, printed, err = ablate("few", tmp_path / out)
    assert (found, printed, err.count("\n")) == (status, "", 1)
    assert err.startswith("error: ")
    assert said in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_from_there(made: Path, tmp_path: Path) -> None:
    whole = run_ablation(read_config(made / "many.toml"), tmp_path / "whole")
    size = (tmp_path / "whole" / "trials.jsonl").stat().st_size // 2
    limited = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    fovbench = str(Path(sys.executable).with_name("fovbench"))
    command = [sys.executable, "-c", f"{limited}; os.execv(sys.argv[1], sys.argv[1:])"]
    command += [fovbench, "ablate", "many.toml", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "trials.jsonl" in done.stderr
    num_kept = len(lines(tmp_path / "out"))
    assert 0 < num_kept < NUM_CELLS
    again = run_ablation(read_config(made / "many.toml"), tmp_path / "out")
    assert [replace(trial, seconds=0.0) for trial in again.trials] == [
        replace(trial, seconds=0.0) for trial in whole.trials
    ]


def test_the_command_prints_what_it_writes(ablate: Callable[..., Any], tmp_path: Path) -> None:
    status, printed, err = ablate("few", tmp_path / "out", "--device", "cpu")
    assert (status, err) == (0, "")
    written = read_ablation(tmp_path / "out" / "ablation.json")
    found = written.estimates[0]
    assert found.ci95 is not None
    for said in (f"{found.mean:.3f}", f"{found.ci95[0]:.3f} to {found.ci95[1]:.3f}", "Nadeau & Bengio"):
        assert said in printed
    status, printed, _ = ablate("few", tmp_path / "out", "--json", "-")
    document = json.loads(printed)
    assert (status, document["format"]) == (0, "fovbench ablation 2")
    assert document == json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert document["environment"]["cpu"]


def test_a_failed_cell_is_in_the_table_and_in_the_status(
    ablate: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fovcache.probes.heads.ridge import RidgeHead

    def fit(*given: Any) -> Any:
        raise FloatingPointError("it [did] not work")

    monkeypatch.setattr(RidgeHead, "fit", fit)
    status, printed, err = ablate("few", tmp_path / "out")
    assert (status, err) == (1, "")
    assert printed.count("FloatingPointError: it [did] not work") == 4
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())["estimates"] == []


def test_a_mistake_in_the_configuration_is_one_line(ablate: Callable[..., Any], made: Path, tmp_path: Path) -> None:
    (made / "wrong.toml").write_text('cache = "cache"\n[head]\nkinds = "ridge"\n')
    status, printed, err = ablate("wrong", tmp_path / "out")
    assert (status, printed) == (2, "")
    assert err == f"error: {made / 'wrong.toml'}: [head]: a ridge head has no setting 'kinds'; nearest: kind\n"
    (made / "nowhere.toml").write_text('cache = "cash"\n')
    status, _, err = ablate("nowhere", tmp_path / "out")
    assert (status, err.count("\n")) == (2, 1)
    assert "there is no cache in" in err
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_says_how_it_goes_on(made: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("fovbench")), "ablate", "many.toml", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=made, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(lines(tmp_path / "out")) >= 3)
    workers = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")
    assert len(workers) == 1
    assert not workers[0].is_running()
    assert err == "error: terminated; what is finished is kept, the same command goes on from there\n"
    with pytest.raises(UsageError):
        read_ablation(tmp_path / "out" / "trials.jsonl")
