"""Training in two processes that torchrun starts: the same samples, the same losses, and one end for both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import SETTINGS, Toy, ToyFeed, train_toy

from fovcache.errors import UsageError
from fovcache.probes.train.result import DONE, FAILED, STOPPED, Run, read_run
from fovcache.probes.train.stepping.log import read_log
from fovcache.probes.train.stepping.processes import num_ranks, open_processes

PROGRAM = Path(__file__).with_name("toy_ranks.py")
LIMIT_S = 240
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
LAUNCHER += ("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that two processes did together."""
    out = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*LAUNCHER, str(PROGRAM), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, list[bytes]]:
    """The same run in one process, and the keys of the samples it was given."""
    folder, feed = tmp_path_factory.mktemp("alone"), ToyFeed()
    return folder, train_toy(folder, toy=Toy(dropout=0.0), feed=feed), feed.seen


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = read_log(folder / "log.jsonl")
    return [(line["samples_seen"], line["values"]["loss"]) for line in lines if line["kind"] == "step"]


def seen(folder: Path) -> list[bytes]:
    """Keys in the order of the steps, the first process's part of each before the second's."""
    parts = [(folder / f"seen-{rank}").read_bytes() for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1])
    step_bytes = 4 * 32
    steps = [part[at : at + step_bytes] for at in range(0, len(parts[0]), step_bytes) for part in parts]
    whole = b"".join(steps)
    return [whole[at : at + 32] for at in range(0, len(whole), 32)]


def test_two_processes_train_on_the_same_samples(alone: tuple[Path, Run, list[bytes]], two: Path) -> None:
    assert read_run(two / "whole" / "run.json").state == DONE
    assert seen(two / "whole") == alone[2]


def test_two_processes_come_to_the_same_losses(alone: tuple[Path, Run, list[bytes]], two: Path) -> None:
    found, expected = losses(two / "whole"), losses(alone[0])
    assert [each for each, _ in found] == [each for each, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], rel=1e-4)
    evaluations = read_run(two / "whole" / "run.json").evaluations
    for one, other in zip(evaluations, alone[1].evaluations, strict=True):
        assert one.values == pytest.approx(dict(other.values), rel=1e-4)


def test_a_signal_to_one_stops_both_and_they_go_on_to_the_same_bits(two: Path) -> None:
    first = read_run(two / "first.json")
    assert (first.state, first.samples_seen) == (STOPPED, 48)
    run = read_run(two / "stopped" / "run.json")
    assert (run.state, run.num_resumed) == (DONE, 1)
    assert losses(two / "stopped") == losses(two / "whole")
    assert seen(two / "stopped") == seen(two / "whole")
    whole = read_run(two / "whole" / "run.json")
    assert [each.values for each in run.evaluations] == [each.values for each in whole.evaluations]
    model = "checkpoints/samples-000000160/model.safetensors"
    found, expected = load_file(two / "stopped" / model), load_file(two / "whole" / model)
    assert found.keys() == expected.keys() == Toy().build(ToyFeed().inputs, 0).state_dict().keys()
    assert all(torch.equal(found[name], each) for name, each in expected.items())


def test_a_loss_that_is_nan_in_one_ends_both(two: Path) -> None:
    run = read_run(two / "nan" / "run.json")
    assert (run.state, run.samples_seen) == (FAILED, 24)
    assert "the loss is nan" in run.reason


def test_a_step_must_be_cut_into_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert num_ranks() == 3
    refused = pytest.raises(UsageError, match="batch_size = 8 is not a multiple of the 3 processes")
    with refused, open_processes(SETTINGS, "cpu"):
        pass
