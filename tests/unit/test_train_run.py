"""A run from its beginning to its end: what it leaves, how it goes on, and how it ends when something is wrong."""

import dataclasses
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_training import SETTINGS, Toy, ToyFeed, ToyModule, train_toy

from fovcache.errors import EnvironmentFailure, UsageError
from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.result import DONE, FAILED, STOPPED, Plan, Run, read_run
from fovcache.probes.train.run import How
from fovcache.probes.train.saving.checkpoint import MODEL_FILE, OPTIMIZER_FILE, last_checkpoint
from fovcache.probes.train.stepping.log import read_log
from fovcache.probes.train.stepping.processes import open_processes

GO_ON = How(with_plan=False, resume=True)


class Signalling(ToyFeed):
    """Sends its process a signal when a step is about to begin."""

    def __init__(self, *, at: int, number: int = signal.SIGTERM, **options: Any) -> None:
        super().__init__(**options)
        self._at, self._number = at, number

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        for step, batch in enumerate(super().train_batches(samples_seen), samples_seen // 8 + 1):
            if step == self._at:
                os.kill(os.getpid(), self._number)
            yield batch


def tensors(folder: Path, samples_seen: int = 160, name: str = "checkpoints") -> dict[str, torch.Tensor]:
    checkpoint = folder / name / f"samples-{samples_seen:09d}"
    optimizer = load_file(checkpoint / OPTIMIZER_FILE)
    return load_file(checkpoint / MODEL_FILE) | {f"optimizer {key}": each for key, each in optimizer.items()}


def assert_same_end(folder: Path, expected: Path) -> None:
    found, wanted = tensors(folder), tensors(expected)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], each) for name, each in wanted.items())


def steps_of(folder: Path) -> list[tuple[int, float]]:
    lines = read_log(folder / "log.jsonl")
    return [(line["samples_seen"], line["values"]["loss"]) for line in lines if line["kind"] == "step"]


def evaluations_of(run: Run) -> list[tuple[int, dict[str, float]]]:
    return [(each.samples_seen, dict(each.values)) for each in run.evaluations]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_toy(folder)


def test_a_whole_run(whole: tuple[Path, Run]) -> None:
    folder, run = whole
    assert (run.state, run.reason, run.samples_seen, run.steps) == (DONE, "", 160, 20)
    assert [each.samples_seen for each in run.evaluations] == [0, 40, 80, 120, 160]
    assert run.final["loss"] < run.evaluations[0].values["loss"]
    assert {part.part: (part.trained, part.unused) for part in run.parameters} == {"body": (163, 0), "spare": (0, 6)}
    assert sorted(each.name for each in (folder / "checkpoints").iterdir()) == [
        "samples-000000120",
        "samples-000000160",
    ]
    assert read_run(folder / "run.json") == run
    assert run.peak_memory_bytes > 10**7
    assert run.kernel_active_share is None
    assert 0 <= run.data_wait_share <= 1


def test_the_log_of_a_whole_run(whole: tuple[Path, Run]) -> None:
    folder, run = whole
    lines = list(read_log(folder / "log.jsonl"))
    assert [line["samples_seen"] for line in lines if line["kind"] == "step"] == list(range(8, 161, 8))
    found = [(line["samples_seen"], line["values"]) for line in lines if line["kind"] == "evaluation"]
    assert found == evaluations_of(run)
    step = next(line for line in lines if line["kind"] == "step")
    assert step.keys() == {
        "kind",
        "samples_seen",
        "step",
        "values",
        "learning_rate",
        "gradient_norm",
        "samples_per_second",
        "data_wait_share",
        "kernel_active_share",
        "peak_memory_bytes",
    }
    assert lines[0]["kind"] == "evaluation"
    assert [line["learning_rate"] for line in lines if line["kind"] == "step"][:5] == [0, 0.0025, 0.005, 0.0075, 0.01]


def test_names_of_tensors_are_the_modules(whole: tuple[Path, Run]) -> None:
    module = Toy().build(ToyFeed().inputs, 0)
    assert load_file(whole[0] / "checkpoints" / "samples-000000160" / MODEL_FILE).keys() == module.state_dict().keys()


def test_a_seed_decides_everything(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    torch.manual_seed(99)
    again = train_toy(tmp_path / "again")
    assert_same_end(tmp_path / "again", whole[0])
    assert evaluations_of(again) == evaluations_of(whole[1])
    assert steps_of(tmp_path / "again") == steps_of(whole[0])
    other = train_toy(tmp_path / "other", seed=1)
    assert evaluations_of(other) != evaluations_of(whole[1])


def test_how_often_it_is_evaluated_and_saved_changes_nothing(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    train_toy(tmp_path, evaluate_every=8, checkpoint_every=1000)
    assert_same_end(tmp_path, whole[0])


def test_the_plan_changes_nothing(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    plans: list[Plan] = []
    feed = ToyFeed()
    run = train_toy(tmp_path, feed=feed, how=How(on_plan=plans.append))
    assert plans == [run.plan]
    assert plans[0].samples == 160
    assert (plans[0].steps, plans[0].evaluations, plans[0].checkpoints) == (20, 5, 4)
    assert_same_end(tmp_path, whole[0])
    assert steps_of(tmp_path) == steps_of(whole[0])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoints", "identity.json", "log.jsonl", "run.json"]
    assert len(feed.seen) == 160  # a stream has nothing to give twice


@pytest.mark.parametrize("at", [2, 5, 6, 20])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, whole: tuple[Path, Run], at: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped = train_toy(tmp_path, feed=Signalling(at=at))
    assert signal.getsignal(signal.SIGTERM) is before
    assert (stopped.state, stopped.samples_seen) == (STOPPED, 8 * at)  # at 20 the last evaluation is left to do
    assert "--resume" in stopped.reason
    assert "SIGTERM" in stopped.reason
    feed = ToyFeed()
    run = train_toy(tmp_path, feed=feed, how=GO_ON)
    assert (run.state, run.num_resumed) == (DONE, 1)
    assert len(feed.seen) == 160 - 8 * at
    assert evaluations_of(run) == evaluations_of(whole[1])
    assert read_run(tmp_path / "run.json") == run
    assert_same_end(tmp_path, whole[0])
    assert steps_of(tmp_path) == steps_of(whole[0])


def test_stopped_twice_it_still_comes_to_the_same_bits(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    train_toy(tmp_path, feed=Signalling(at=3, number=signal.SIGINT))
    train_toy(tmp_path, feed=Signalling(at=11), how=GO_ON)
    assert train_toy(tmp_path, how=GO_ON).num_resumed == 2
    assert_same_end(tmp_path, whole[0])


@pytest.mark.parametrize("evaluation", [2, 4])
def test_a_signal_during_an_evaluation_leaves_it_for_later(
    tmp_path: Path, whole: tuple[Path, Run], evaluation: int
) -> None:
    class Interrupted(ToyFeed):
        num = 0

        def validation_batches(self) -> Iterator[FeedBatch]:
            for number, batch in enumerate(super().validation_batches()):
                if number == 1 and self.num == evaluation:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch
            self.num += 1

    stopped = train_toy(tmp_path, feed=Interrupted())
    assert (stopped.state, stopped.samples_seen) == (STOPPED, 40 * evaluation)
    assert [each.samples_seen for each in stopped.evaluations] == [40 * number for number in range(evaluation)]
    run = train_toy(tmp_path, how=GO_ON)
    assert run.state == DONE
    assert evaluations_of(run) == evaluations_of(whole[1])
    assert run.parameters == whole[1].parameters
    assert_same_end(tmp_path, whole[0])


def test_where_a_stream_ends_nothing_is_lost(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    class Short(ToyFeed):
        def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
            for step, batch in enumerate(super().train_batches(samples_seen), samples_seen // 8):
                if step == 13:
                    raise UsageError("the stream has ended")
                yield batch

    with pytest.raises(UsageError, match="the stream has ended"):
        train_toy(tmp_path, feed=Short())
    assert last_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "samples-000000104"
    feed = ToyFeed()
    run = train_toy(tmp_path, feed=feed, how=GO_ON)
    assert len(feed.seen) == 160 - 104
    assert evaluations_of(run) == evaluations_of(whole[1])
    assert_same_end(tmp_path, whole[0])


def test_outside_of_the_main_thread_no_handler_is_touched(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(train_toy(tmp_path, samples=16)))
    thread.start()
    thread.join()
    assert found[0].state == DONE
    assert signal.getsignal(signal.SIGTERM) is before


def test_killed_it_goes_on_from_the_last_checkpoint(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    class Dying(ToyFeed):
        def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
            for step, batch in enumerate(super().train_batches(samples_seen)):
                if step == 13:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, feed=Dying())
    assert [each for each, _ in steps_of(tmp_path)][-1] == 104
    with pytest.raises(UsageError, match="--resume"):
        train_toy(tmp_path)
    feed = ToyFeed()
    run = train_toy(tmp_path, feed=feed, how=GO_ON)
    assert len(feed.seen) == 80
    assert_same_end(tmp_path, whole[0])
    assert steps_of(tmp_path) == steps_of(whole[0])
    assert evaluations_of(run) == evaluations_of(whole[1])


def test_without_a_checkpoint_it_begins_again(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    class Dying(ToyFeed):
        def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
            batches = super().train_batches(samples_seen)
            yield next(batches)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, feed=Dying())
    assert train_toy(tmp_path, how=GO_ON).num_resumed == 0
    assert_same_end(tmp_path, whole[0])
    assert steps_of(tmp_path) == steps_of(whole[0])


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    run = train_toy(tmp_path, samples=16)
    for how in (How(), GO_ON):
        feed = ToyFeed()
        assert train_toy(tmp_path, feed=feed, how=how, samples=16) == run
        assert not feed.seen
    with pytest.raises(UsageError, match=r"train\.samples was 16 .* and is 24 now"):
        train_toy(tmp_path, samples=24)


def test_a_changed_configuration_is_refused_by_name(tmp_path: Path) -> None:
    train_toy(tmp_path, feed=Signalling(at=2))
    with pytest.raises(UsageError, match=r"train\.learning_rate was 0\.01 .* 0\.02"):
        train_toy(tmp_path, how=GO_ON, learning_rate=0.02)
    with pytest.raises(UsageError, match=r"seed was 0 .* 3"):
        train_toy(tmp_path, how=GO_ON, seed=3)
    assert train_toy(tmp_path, how=GO_ON, keep=1).state == DONE  # which changes nothing of it


class Breaking(ToyModule):
    """Its loss is NaN from the 8th pass on."""

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        values = super().forward(batch)
        return {**values, "loss": values["loss"] * torch.nan} if self.training and self.num_passes > 7 else values


def test_a_loss_that_is_nan_ends_the_run(tmp_path: Path) -> None:
    run = train_toy(tmp_path, toy=Toy(module=Breaking))
    assert (run.state, run.samples_seen, run.steps) == (FAILED, 56, 7)
    assert run.reason.startswith("step 8, after 56 samples: the loss is nan; the last good checkpoint is ")
    assert "samples-000000040" in run.reason
    assert "before_failure" in run.reason
    assert read_run(tmp_path / "run.json") == run
    assert last_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "samples-000000040"
    kept = tensors(tmp_path, 56, "before_failure")
    assert all(torch.isfinite(each).all() for each in kept.values() if each.is_floating_point())
    assert float(kept["num_passes"]) == 7
    assert any(line["kind"] == "event" and "nan" in line["text"] for line in read_log(tmp_path / "log.jsonl"))
    with pytest.raises(UsageError, match="a run that failed"):
        train_toy(tmp_path, toy=Toy(module=Breaking))


def test_a_validation_loss_that_is_nan_ends_the_run(tmp_path: Path) -> None:
    class Odd(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            values = super().forward(batch)
            return values if self.training or self.num_passes < 1 else {**values, "loss": values["loss"] * torch.inf}

    run = train_toy(tmp_path, toy=Toy(module=Odd))
    assert run.state == FAILED
    assert "the validation loss is inf" in run.reason


def test_without_memory_it_says_where_to_go_on(tmp_path: Path) -> None:
    class Hopeless(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            if self.training and self.num_passes > 6:
                raise MemoryError
            return super().forward(batch)

    with pytest.raises(EnvironmentFailure, match=r"step 8: .*a single sample.*samples-000000040"):
        train_toy(tmp_path, toy=Toy(module=Hopeless))
    with pytest.raises(UsageError, match="an unfinished run"):
        train_toy(tmp_path, toy=Toy(module=Hopeless))


def test_what_memory_allowed_is_told_and_goes_on(tmp_path: Path) -> None:
    class Greedy(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            if len(batch["y"]) > 4:
                raise MemoryError
            return super().forward(batch)

    greedy = Toy(module=Greedy, dropout=0.0)
    run = train_toy(tmp_path / "a", toy=greedy, feed=Signalling(at=6, validation_batch=2))
    assert len(run.events) == 1
    assert "micro-batches of 8: done again with 4" in run.events[0]
    run = train_toy(tmp_path / "a", toy=greedy, feed=ToyFeed(validation_batch=2), how=GO_ON)
    assert len(run.events) == 1  # and was not found out again
    small = train_toy(tmp_path / "b", toy=Toy(dropout=0.0), micro_batch_size=4)
    assert_same_end(tmp_path / "a", tmp_path / "b")
    assert run.final == pytest.approx(dict(small.final))


def test_fp16_needs_cuda(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fp16.*CUDA"):
        train_toy(tmp_path, precision="fp16")


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="cuda:99"), open_processes(SETTINGS, "cuda:99"):
        pass


def test_settings_of_one_run_do_not_stay_for_the_next(tmp_path: Path, whole: tuple[Path, Run]) -> None:
    train_toy(tmp_path / "half", precision="bf16", samples=16)
    train_toy(tmp_path / "full")
    assert_same_end(tmp_path / "full", whole[0])


def test_what_is_seen_of_attention(tmp_path: Path) -> None:
    class Looking(ToyModule):
        def attention_maps(self, batch: Any) -> dict[str, torch.Tensor]:
            assert not self.training
            return {"fine": torch.full((len(batch["y"]), 2, 1, 2), 0.5)}

    run = train_toy(tmp_path, toy=Toy(module=Looking), samples=8)
    assert [(each.name, each.frames) for each in run.attention] == [("fine", (((0.5, 0.5),), ((0.5, 0.5),)))] * 2
    assert run.attention[0].sample != run.attention[1].sample


def test_unused_parameters_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        train_toy(tmp_path, samples=8)
    assert "spare.weight" in caplog.text


def test_identity_holds_what_decides_the_run(whole: tuple[Path, Run]) -> None:
    identity = json.loads((whole[0] / "identity.json").read_text())
    assert identity["seed"] == 0
    assert identity["feed.kind"] == "toy"
    assert identity["train.learning_rate"] == 0.01


def test_there_are_as_few_validation_samples_as_processes(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, validation_samples=1)
    assert train_toy(tmp_path, settings, samples=8).state == DONE
