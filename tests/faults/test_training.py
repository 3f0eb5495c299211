"""Training that is killed, stopped, out of disk, damaged or diverging, and taken up again: the same bits in the end."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_disk import ROOMY

from fovcache import open as open_cache

BATCH, STEPS, EVERY = 8, 24, 5
EVENTS = 12
MODEL = """
    import os, signal, time
    import torch
    from torch import nn
    from fovcache.trainable import FEATURES, LABELS, Need

    class Wobbly:
        name = "wobbly"

        def __init__(self, settings):
            self.width = settings.get("width", 6)

        def document(self):
            return {"name": self.name, "width": self.width}

        def needs(self):
            return {"x": Need(kind=FEATURES, what="pixels"), "y": Need(kind=LABELS, what="classes")}

        def frozen(self):
            return {}

        def build(self, inputs, seed):
            torch.manual_seed(seed)
            return Net(inputs["x"].row_shape[0], self.width, inputs["y"].num_classes)

    class Net(nn.Module):
        '''Draws at random, and has statistics of its own. What the environment says happens at a forward pass.'''

        def __init__(self, inputs, width, classes):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.Dropout(0.5))
            self.head = nn.Linear(width, classes)
            self.passes = 0

        def forward(self, batch):
            x = self.body(batch["x"].float())
            if self.training:
                self.passes += 1
                x = x + 0.1 * torch.randn_like(x)
                if self.passes == int(os.environ.get("KILL_AT", 0)):
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.passes == int(os.environ.get("TERM_AT", 0)):
                    os.kill(os.getpid(), signal.SIGTERM)
                if self.passes == int(os.environ.get("NAN_AT", 0)):
                    x = x * torch.nan
            return {"loss": nn.functional.cross_entropy(self.head(x), batch["y"], reduction="none")}
"""
CONFIG = f"""
cache = "cache"
device = "cpu"
[model]
kind = "wobbly"
[train]
samples = {STEPS * BATCH}
batch_size = {BATCH}
learning_rate = 0.01
warmup_samples = 40
evaluate_every = {BATCH * 8}
validation_samples = 6
checkpoint_every = {BATCH * EVERY}
keep = 2
"""
TIMES = re.compile(r"_s$|^seconds$|per_second$|_share$|_bytes$|^num_resumed$|^plan$|^spent$")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """A folder with a cache, a model as an installed distribution, and `train.toml`."""
    folder = tmp_path_factory.mktemp("made")
    images = make_images(folder / "images", num=30, classes=("a", "b", "c"), size=8)
    open_cache(folder / "cache").build(str(images), encoder="pixels", layers=["pixels8"])
    (folder / "wobbly.py").write_text(textwrap.dedent(MODEL))
    (folder / "wobbly-1.dist-info").mkdir()
    (folder / "wobbly-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wobbly\nVersion: 1\n")
    (folder / "wobbly-1.dist-info" / "entry_points.txt").write_text("[fovcache.trainables]\nwobbly = wobbly:Wobbly\n")
    (folder / "train.toml").write_text(CONFIG)
    return folder


class Training:
    """Runs of one configuration, each in a process of its own."""

    def __init__(self, made: Path, forks: Any) -> None:
        self._made, self._forks = made, forks

    def __call__(self, out: Path, *flags: str, config: str = "train.toml", **order: Any) -> Any:
        """One process: its status and what it said."""
        return self._forks.run(self._made / config, out, *flags, program="train_program", **order)

    def to_the_end(self, out: Path) -> Any:
        """Go on, whole."""
        done = self(out, "--resume")
        assert done.status == 0, done
        return done

    def edited(self, old: str, new: str) -> str:
        """The name of a configuration that differs."""
        assert old in CONFIG
        (self._made / "edited.toml").write_text(CONFIG.replace(old, new))
        return "edited.toml"


@pytest.fixture
def training(made: Path, forks: Any) -> Training:
    return Training(made, forks)


@pytest.fixture(scope="module")
def whole(made: Path, forks: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run comes to that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = Training(made, forks)(out)
    assert done.status == 0, done
    return contents(out)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not TIMES.search(key)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def contents(out: Path) -> dict[str, Any]:
    """All that two equal runs have in common: tensors to the bit, and the rest but for times."""
    found: dict[str, Any] = {}
    for path in sorted((out / "checkpoints").iterdir()):
        state = json.loads((path / "state.json").read_bytes())
        found[path.name] = without_times(state)
        for name in ("model.safetensors", "optimizer.safetensors"):
            found[f"{path.name}/{name}"] = (path / name).read_bytes()
    found["run"] = without_times(json.loads((out / "run.json").read_bytes()))
    found["log"] = [without_times(json.loads(line)) for line in (out / "log.jsonl").read_text().splitlines()]
    return found


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_one_line(done: Any, said: str) -> None:
    """An error of the machine, in one line."""
    assert done.status == 3, done
    assert [said in line for line in done.err.splitlines() if line.startswith("error: ")] == [True], done


def name_of(steps: int) -> str:
    return f"samples-{steps * BATCH:09d}"


def test_a_run_that_nothing_stopped_logs_every_sample_once(whole: dict[str, Any]) -> None:
    steps = [line["samples_seen"] for line in whole["log"] if line["kind"] == "step"]
    assert steps == [BATCH * (number + 1) for number in range(STEPS)]
    assert [line["samples_seen"] for line in whole["log"] if line["kind"] == "evaluation"] == [0, 64, 128, 192]
    assert [name for name in whole if name.startswith("samples-") and "/" not in name] == [name_of(20), name_of(24)]
    assert whole["run"]["state"] == "done"


def test_killed_at_random_steps_again_and_again_it_ends_with_the_same_bits(
    training: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    chance = random.Random(0)
    num_killed = 0
    for attempt in range(2):
        out = tmp_path / str(attempt)
        for flags in ((), *[("--resume",)] * 3):
            done = training(out, *flags, environ={"KILL_AT": str(chance.randint(1, 14))})
            num_killed += done.status == -signal.SIGKILL
            assert done.status in (0, -signal.SIGKILL), done
        training.to_the_end(out)
        assert contents(out) == whole
    assert num_killed >= 4


def test_killed_before_chosen_file_operations_it_ends_with_the_same_bits(
    training: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    """Of taking the run up, of writing, publishing and removing checkpoints, and of the result."""
    began, counter = tmp_path / "began", tmp_path / "events"
    assert training(began, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    assert checkpoints(began) == [name_of(EVERY), name_of(2 * EVERY)]
    counted = shutil.copytree(began, tmp_path / "counted")
    assert training(counted, "--resume", events=str(counter), watch=str(counted)).status == 0
    num_events = int(counter.read_text())
    assert num_events > 40
    last_removal = range(num_events - 14, num_events, 4)
    for number in {*range(1, num_events + 1, max(1, num_events // EVENTS)), *last_removal}:
        out = shutil.copytree(began, tmp_path / str(number))
        done = training(out, "--resume", events=str(counter), watch=str(out), die_at=number)
        assert done.status == -signal.SIGKILL, done
        assert "damaged" not in training.to_the_end(out).err
        assert contents(out) == whole, number


def test_a_polite_signal_saves_and_the_run_goes_on_to_the_same_bits(
    training: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for flags in ((), ("--resume",)):
        done = training(out, *flags, environ={"TERM_AT": "12"})
        assert done.status == 1, done
        run = json.loads((out / "run.json").read_bytes())
        assert run["state"] == "stopped"
        assert "SIGTERM" in run["reason"]
        assert checkpoints(out)[-1] == f"samples-{run['samples_seen']:09d}"
    training.to_the_end(out)
    assert contents(out) == whole


def test_a_flipped_bit_in_the_last_checkpoint_costs_that_one_alone(
    training: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert training(out, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    path = out / "checkpoints" / checkpoints(out)[-1] / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    done = training.to_the_end(out)
    assert f"{path} is damaged" in done.err
    assert contents(out) == whole


def test_where_all_checkpoints_are_damaged_the_run_is_not_begun_again(training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert training(out, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    for name in checkpoints(out):
        (out / "checkpoints" / name / "model.safetensors").write_bytes(b"")
    refused = training(out, "--resume")
    assert refused.status == 1
    assert "every checkpoint in" in refused.err
    assert not (out / "run.json").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_the_run_goes_on(
    training: Training, whole: dict[str, Any], tmp_path: Path
) -> None:
    """By a limit on files' sizes, which anybody may set."""
    out = tmp_path / "out"
    assert training(out, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    last = out / "checkpoints" / checkpoints(out)[-1]
    limit = (last / "state.json").stat().st_size - 1
    assert limit > (out / "log.jsonl").stat().st_size
    content = content_of(last)
    stopped = training(out, "--resume", file_size_limit=limit)
    assert_one_line(stopped, f"the last good one is {last}: File too large")
    assert content_of(last) == content
    training.to_the_end(out)
    assert contents(out) == whole


def test_a_full_disk_leaves_the_checkpoint_before_it_and_the_run_goes_on(
    training: Training, whole: dict[str, Any], disk: Any
) -> None:
    out = disk.path / "out"
    assert training(out, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    last = out / "checkpoints" / checkpoints(out)[-1]
    content = content_of(last)
    used = os.statvfs(disk.path)
    disk.remount(f"size={(used.f_blocks - used.f_bfree) * used.f_frsize + (24 << 10)}")
    full = training(out, "--resume")
    assert_one_line(full, f"the last good one is {last}: the disk is full: free some space and run the same command")
    assert content_of(last) == content
    assert checkpoints(out)[-1] == last.name
    disk.remount(f"size={ROOMY}")
    training.to_the_end(out)
    assert contents(out) == whole


def test_a_loss_that_is_no_number_stops_the_run_with_its_state_kept(training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = training(out, environ={"NAN_AT": "18"})
    assert done.status == 1, done
    run = json.loads((out / "run.json").read_bytes())
    assert run["state"] == "failed"
    assert f"step {run['steps'] + 1}, after {run['samples_seen']:,} samples" in run["reason"]
    assert f"the last good checkpoint is {out / 'checkpoints' / checkpoints(out)[-1]}" in run["reason"]
    assert (out / "before_failure" / f"samples-{run['samples_seen']:09d}" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "learning_rate = 0.01",
            "learning_rate = 0.02",
            "train.learning_rate was 0.01 when the run began, and is 0.02",
        ),
        ('kind = "wobbly"', 'kind = "wobbly"\nwidth = 7', "model.width was 6 when the run began, and is 7 now"),
    ],
)
def test_a_changed_configuration_is_refused_by_its_field(
    training: Training, tmp_path: Path, old: str, new: str, said: str
) -> None:
    out = tmp_path / "out"
    assert training(out, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    before = checkpoints(out)
    refused = training(out, "--resume", config=training.edited(old, new))
    assert refused.status == 2, refused
    assert said in refused.err
    assert checkpoints(out) == before


def test_what_decides_nothing_may_change(training: Training, whole: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert training(out, environ={"KILL_AT": "18"}).status == -signal.SIGKILL
    done = training(out, "--resume", config=training.edited("keep = 2", "keep = 1"))
    assert done.status == 0, done
    assert checkpoints(out) == [name_of(STEPS)]
    found = contents(out)
    assert found[f"{name_of(STEPS)}/model.safetensors"] == whole[f"{name_of(STEPS)}/model.safetensors"]
