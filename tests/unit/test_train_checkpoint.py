"""Checkpoints of training: what comes back, under which names, what of damage is found, and what stays on the disk."""

import json
import logging
import math
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fovcache.errors import DamageError, EnvironmentFailure, UsageError, WeightsError
from fovcache.probes.train.result import Evaluation
from fovcache.probes.train.saving.checkpoint import (
    CHECKSUMS_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    TrainState,
    last_checkpoint,
    load_checkpoint,
    read_state,
    rotate,
    save_checkpoint,
)
from fovcache.probes.train.saving.random_states import put_back_random, seed_all, take_random

FILES = {MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, CHECKSUMS_FILE}


class Language(nn.Module):
    """A little of everything: tied weights, running statistics, dropout, a mask, an empty buffer, one unused part."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("nothing", torch.zeros(0, dtype=torch.bfloat16))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.norm(self.embedding(tokens))))


class Training:
    """A run of few steps."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        seed_all(seed)
        self.module = Language(width)
        decayed = [self.module.embedding.weight, self.module.unused.weight]
        others = [self.module.unused.bias, *self.module.norm.parameters()]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.01)
        self.steps = 0

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            loss = self.module(torch.randint(0, 5, (8,))).logsumexp(1).mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1

    def save(self, folder: Path, *, keep: int = 3) -> Path:
        state = TrainState(samples_seen=self.steps * 8, steps=self.steps, random=(take_random(),))
        return save_checkpoint(folder, module=self.module, optimizer=self.optimizer, state=state, keep=keep)

    def load(self, path: Path) -> None:
        state = load_checkpoint(path, module=self.module, optimizer=self.optimizer)
        self.steps = state.steps
        put_back_random(state.random[0])

    def tensors(self) -> list[torch.Tensor]:
        states = self.optimizer.state_dict()["state"]
        moments = [value for number in sorted(states) for _, value in sorted(states[number].items())]
        return [*self.module.state_dict().values(), *moments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def training() -> Training:
    return Training()


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets the most bytes that this process may write to a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes if size_bytes >= 0 else soft, hard))

    yield limit
    limit(-1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_what_goes_on_from_a_checkpoint_computes_the_same_bits(training: Training, folder: Path) -> None:
    training.step(3)
    path = training.save(folder)
    training.step(4)
    again = Training(seed=1)
    again.step(2)
    again.load(path)
    again.step(4)
    assert again.steps == training.steps
    assert all(map(torch.equal, training.tensors(), again.tensors()))
    assert len(again.tensors()) == len(training.tensors())
    assert again.module.head.weight is again.module.embedding.weight


def test_a_checkpoint_before_the_first_step_is_one_too(training: Training, folder: Path) -> None:
    path = training.save(folder)
    training.step(2)
    again = Training(seed=1)
    again.load(path)
    again.step(2)
    assert all(map(torch.equal, training.tensors(), again.tensors()))


def test_the_rest_of_the_state_comes_back(training: Training, folder: Path) -> None:
    evaluations = (Evaluation(samples_seen=0, values={"loss": 1.5, "missing": math.nan}, seconds=0.1),)
    state = TrainState(
        samples_seen=1_234_567_890,
        steps=7,
        num_resumed=2,
        evaluations=evaluations,
        events=("8 samples did not fit — 4 at a time",),
        feed={"shards": ["a", "b"]},
        loss_scale={"scale": 65536.0, "_growth_tracker": 3},
        random=(take_random(), take_random()),
        loop={"micro_batch_size": None, "seed": 2**63},
        identity={"train.learning_rate": 3e-05, "train.betas": [0.9, 0.999]},
    )
    path = save_checkpoint(folder, module=training.module, optimizer=training.optimizer, state=state, keep=1)
    found = read_state(path)
    assert math.isnan(found.evaluations[0].values["missing"])
    assert repr(found) == repr(state)
    assert load_checkpoint(path, module=training.module).random == state.random


def test_files_are_plain_safetensors_with_tied_weights_once(training: Training, folder: Path) -> None:
    training.step()
    path = training.save(folder)
    assert set(names(path)) == FILES
    state, moments = training.module.state_dict(), load_file(path / OPTIMIZER_FILE)
    model = load_file(path / MODEL_FILE)
    assert model.keys() == state.keys() - {"head.weight"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.items())
    stepped = ("embedding.weight", "norm.weight", "norm.bias")
    assert moments.keys() == {f"{name}.{key}" for name in stepped for key in ("exp_avg", "exp_avg_sq", "step")}


def test_what_does_not_fit_is_named(training: Training, folder: Path) -> None:
    training.step()
    path = training.save(folder)
    with pytest.raises(WeightsError, match=r"norm\.weight has the shape \[4\], expected \[6\]") as wider:
        Training(width=6).load(path)
    assert str(path) in str(wider.value)
    more = Training()
    more.module.new = nn.Linear(1, 1, bias=False)
    with pytest.raises(WeightsError, match=r"the model: new\.weight is missing"):
        more.load(path)
    fewer = Training()
    del fewer.module.unused
    with pytest.raises(WeightsError, match=r"unused\.bias is unexpected; unused\.weight is unexpected"):
        fewer.load(path)
    other = Training()
    other.optimizer = torch.optim.AdamW(other.module.norm.parameters())
    with pytest.raises(WeightsError, match=r"other parameters: embedding\.weight, unused\.bias, unused\.weight"):
        other.load(path)


def test_the_last_ones_stay(training: Training, folder: Path) -> None:
    for _ in range(5):
        training.step()
        training.save(folder, keep=2)
    assert names(folder) == ["samples-000000032", "samples-000000040"]
    assert last_checkpoint(folder) == folder / "samples-000000040"


def test_where_none_was_written_there_is_none(
    folder: Path, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    assert last_checkpoint(folder) is None
    training.save(folder).rename(folder / "samples-000000000.tmp")
    assert last_checkpoint(folder) is None
    assert "samples-000000000.tmp is an unfinished checkpoint" in caplog.text
    training.save(folder)
    assert names(folder) == ["samples-000000000"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_any_flipped_bit_is_found_and_the_checkpoint_before_is_used(
    training: Training, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    first = training.save(folder)
    training.step()
    second = training.save(folder)
    whole = (second / name).read_bytes()
    for position in range(0, len(whole), 1 + len(whole) // 40):
        flip(second / name, position, position % 8)
        caplog.clear()
        assert last_checkpoint(folder) == first
        assert str(second / name) in caplog.text
        with pytest.raises(DamageError):
            training.load(second)
        (second / name).write_bytes(whole)
    assert last_checkpoint(folder) == second
    for damage in (lambda path: path.write_bytes(whole[:-1]), Path.unlink):
        damage(second / name)
        assert last_checkpoint(folder) == first


def test_where_all_are_damaged_is_an_error(training: Training, folder: Path) -> None:
    for _ in range(2):
        flip(training.save(folder) / MODEL_FILE, 300)
        training.step()
    with pytest.raises(DamageError, match=r"every checkpoint in .* is damaged \(samples-0+8, samples-0+\)"):
        last_checkpoint(folder)


def test_a_checkpoint_of_another_format_is_not_passed_over(training: Training, folder: Path) -> None:
    from fovcache.store.documents import sealed

    path = training.save(folder)
    (path / CHECKSUMS_FILE).write_bytes(sealed({"format": "fovbench checkpoint 99", "files": {}}))
    with pytest.raises(UsageError, match="format 'fovbench checkpoint 99', expected"):
        last_checkpoint(folder)


def test_a_run_that_went_on_from_before_a_damaged_one_writes_over_it(training: Training, folder: Path) -> None:
    for _ in range(3):
        training.step()
        path = training.save(folder, keep=3)
    for damaged in ("samples-000000016", "samples-000000024"):
        flip(folder / damaged / MODEL_FILE, 300)
    training.load(last_checkpoint(folder))
    assert training.steps == 1
    training.step()
    assert training.save(folder, keep=3).name == "samples-000000016"
    assert names(folder) == ["samples-000000008", "samples-000000016"]
    assert last_checkpoint(folder).name == "samples-000000016"
    training.step()
    training.save(folder, keep=1)
    assert names(folder) == [path.name]


def test_one_of_the_same_samples_is_never_missing(training: Training, folder: Path) -> None:
    """Killed between the two renames that replace a checkpoint, the old one is there under its other name."""
    path = training.save(folder, keep=1)
    replaced = path.rename(folder / "samples-000000000.replaced")
    shutil.copytree(replaced, folder / "samples-000000000.tmp")
    assert last_checkpoint(folder) == replaced
    rotate(folder, 0, 1)
    assert names(folder) == [replaced.name]
    training.load(replaced)
    training.save(folder, keep=1)
    assert names(folder) == ["samples-000000000"]
    training.module.unused.bias.data.fill_(3)
    training.save(folder, keep=1)
    assert names(folder) == ["samples-000000000"]
    assert (load_file(path / MODEL_FILE)["unused.bias"] == 3).all()


def test_a_disk_that_fills_up_leaves_the_last_one(
    training: Training, folder: Path, file_size_limit: Callable[[int], None]
) -> None:
    file_size_limit(100)
    with pytest.raises(EnvironmentFailure, match="there is no good one before it"):
        training.save(folder)
    file_size_limit(-1)
    training.step()
    first = training.save(folder, keep=1)
    content = {path.name: path.read_bytes() for path in first.iterdir()}
    training.step()
    for size in (0, 100, 1000, 10_000):
        file_size_limit(size)
        with pytest.raises(EnvironmentFailure) as failure:
            training.save(folder, keep=1)
        file_size_limit(-1)
        assert f"cannot write the checkpoint {folder / 'samples-000000016'}" in str(failure.value)
        assert f"the last good one is {first}" in str(failure.value)
        assert names(folder) == [first.name]
        assert {path.name: path.read_bytes() for path in first.iterdir()} == content
    assert last_checkpoint(folder) == first
    training.save(folder, keep=1)
    assert names(folder) == ["samples-000000016"]


def test_what_a_checkpoint_cannot_hold_is_named(training: Training, folder: Path) -> None:
    training.module.register_buffer("spectrum", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(UsageError, match=r"spectrum is of torch\.complex64"):
        training.save(folder)
    assert not folder.exists()


def test_damage_is_said_once_a_checkpoint(training: Training, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        training.step()
        path = training.save(folder)
    flip(path / STATE_FILE, 5)
    with caplog.at_level(logging.WARNING):
        last_checkpoint(folder)
    assert len(caplog.records) == 1
    assert json.loads((path / CHECKSUMS_FILE).read_bytes())["files"].keys() == FILES - {CHECKSUMS_FILE}
