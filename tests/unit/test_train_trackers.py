"""TensorBoard and W&B beside the log: what is told, where it lies, and what is never in it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_training import train_toy

from fovcache.errors import UsageError
from fovcache.probes.train.stepping.log import read_log
from fovcache.probes.train.stepping.trackers import check_trackers

needs_tensorboard = pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="needs tensorboard")
needs_wandb = pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="needs wandb")
SECRET = "4ba7816aa2c94d1d8f0f2bc5a6e1c7d8f0a1b2c3"


def test_a_tracker_that_is_not_installed_is_refused_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    check_trackers(())
    with pytest.raises(UsageError, match=r"pip install 'fovcache\[wandb\]'"):
        check_trackers(("wandb",))


@needs_tensorboard
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_what_the_log_has(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_toy(tmp_path, trackers=("tensorboard",), samples=40)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    steps = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "step"]
    found = [(each.step, each.value) for each in events.Scalars("train/loss")]
    assert found == [(line["samples_seen"], pytest.approx(line["values"]["loss"], rel=1e-6)) for line in steps]
    tags = set(events.Tags()["scalars"])
    assert {"validation/accuracy", "train/gradient_norm", "train/learning_rate", "train/data_wait_share"} <= tags
    assert [each.step for each in events.Scalars("validation/loss")] == [0, 40]


PROGRAM = """
import socket, sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from toy_training import train_toy
real = socket.socket.connect
def connect(self, address):
    host = address[0] if isinstance(address, tuple) else "unix"
    assert host in ("127.0.0.1", "::1", "localhost", "unix"), f"connects to {address}"
    return real(self, address)
socket.socket.connect = connect
train_toy(Path(sys.argv[1]), trackers=("wandb",), samples=40)
"""


@needs_wandb
def test_wandb_stays_offline_in_the_runs_folder_without_secrets(tmp_path: Path) -> None:
    out, home = tmp_path / "out", tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "WANDB_API_KEY": SECRET, "WANDB_MODE": "online", "HOME": str(home)}
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "SOME_TOKEN": SECRET}
    contracts = str(Path(__file__).parents[1] / "contracts")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), contracts],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (out / "wandb").glob("offline-run-*")
    (written,) = run.glob("run-*.wandb")
    content = written.read_bytes()
    assert b"train/loss" in content
    assert b"validation/accuracy" in content
    for path in [*out.rglob("*"), *home.rglob("*")]:
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in done.stdout + done.stderr
