"""Steps and evaluations of a module: accumulated, evaluated over the whole set, put back, halved when memory ends."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, Toy, ToyFeed, ToyModule

from fovcache.errors import UsageError
from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.saving.random_states import take_random
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.stepping.processes import Processes, open_processes
from fovcache.probes.train.stepping.step_record import DoesNotFitError, NonFiniteError
from fovcache.probes.train.stepping.trainer import Trainer

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."


@pytest.fixture
def processes() -> Iterator[Processes]:
    with open_processes(SETTINGS, "cpu") as opened:
        yield opened


def make_trainer(
    processes: Processes, *, dropout: float = 0.0, module: type[ToyModule] = ToyModule, **changes: Any
) -> tuple[Trainer, ToyFeed]:
    settings: TrainSettings = dataclasses.replace(SETTINGS, **{"warmup_samples": 0, **changes})
    feed = ToyFeed(settings)
    torch.manual_seed(0)
    return Trainer(Toy(dropout=dropout, module=module).build(feed.inputs, 0), feed, settings, processes), feed


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(trainer.module.state_dict())


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("micro", [1, 3, 4, 5])
def test_micro_batches_give_the_gradient_of_the_whole_step(processes: Processes, micro: int) -> None:
    whole, feed = make_trainer(processes)
    cut, _ = make_trainer(processes, micro_batch_size=micro)
    batch = next(feed.train_batches(0))
    record, other = whole.step(batch), cut.step(batch)
    assert other.values == pytest.approx(record.values, rel=1e-6)
    assert other.gradient_norm == pytest.approx(record.gradient_norm, rel=1e-5)
    for (name, one), each in zip(whole.module.named_parameters(), cut.module.parameters(), strict=True):
        if one.grad is None:
            assert name.startswith("spare")
        else:
            torch.testing.assert_close(each.grad, one.grad, rtol=1e-5, atol=1e-7)


def test_a_step_is_torchs_own(processes: Processes) -> None:
    """Bit for bit what one writes by hand: decay for matrices alone, clipped, at the schedule's rate."""
    trainer, feed = make_trainer(processes, dropout=0.3, clip_norm=0.05)
    module = Toy(dropout=0.3).build(feed.inputs, 0)
    used = list(module.body.parameters())  # type: ignore[union-attr]
    matrices, vectors = [p for p in used if p.ndim == 2], [p for p in used if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8, fused=True)
    batch = next(feed.train_batches(0))
    torch.manual_seed(5)
    trainer.step(batch)
    torch.manual_seed(5)
    module(batch.tensors)["loss"].mean().backward()
    norm = nn.utils.clip_grad_norm_(used, 0.05)
    optimizer.step()
    assert norm > 0.05
    assert_equal(weights(trainer), module.state_dict())


def test_what_a_step_says(processes: Processes) -> None:
    trainer, feed = make_trainer(processes)
    batch = next(feed.train_batches(0))
    module = copy.deepcopy(trainer.module)
    found = module(batch.tensors)
    found["loss"].mean().backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]))
    record = trainer.step(batch)
    assert (record.step, record.samples_seen, record.learning_rate) == (1, 8, 0.01)
    assert record.gradient_norm == pytest.approx(float(norm), rel=1e-6)
    assert record.values["loss"] == pytest.approx(float(found["loss"].detach().mean()), rel=1e-6)
    has_one = batch.tensors["y"] == 0
    assert 0 < has_one.sum() < 8
    assert record.values["entropy"] == pytest.approx(float(found["entropy"][has_one].mean()), rel=1e-6)


def test_a_mean_that_no_sample_has_is_nan_and_stops_nothing(processes: Processes) -> None:
    trainer, feed = make_trainer(processes)
    batch = feed.batch((feed.y[:30] == 1).nonzero()[:8, 0].numpy())
    assert trainer.step(batch).values["entropy"] != trainer.step(batch).values["entropy"]


def test_without_clipping_the_norm_is_told_and_nothing_scaled(processes: Processes) -> None:
    free, feed = make_trainer(processes, clip_norm=0.0)
    loose, _ = make_trainer(processes, clip_norm=1e9)
    batch = next(feed.train_batches(0))
    assert free.step(batch).gradient_norm == loose.step(batch).gradient_norm
    assert_equal(weights(free), weights(loose))


@pytest.mark.parametrize("validation_batch", [1, 2, 5, 11])
@pytest.mark.parametrize("micro", [None, 3])
def test_an_evaluation_is_the_mean_over_the_set(processes: Processes, validation_batch: int, micro: int | None) -> None:
    settings = dataclasses.replace(SETTINGS, micro_batch_size=micro)
    feed = ToyFeed(settings, validation_batch=validation_batch)
    trainer = Trainer(Toy().build(feed.inputs, 0), feed, settings, processes)
    found = trainer.evaluate()
    assert found is not None
    module = trainer.module.eval()
    with torch.no_grad():
        each = module({"frames": feed.x[30:], "y": feed.y[30:]})
    assert found.values["loss"] == pytest.approx(float(each["loss"].double().mean()), rel=1e-6)
    assert found.values["accuracy"] == float(each["accuracy"].double().mean())
    assert found.values["entropy"] == pytest.approx(float(each["entropy"].double().nanmean()), rel=1e-6)


def test_an_evaluation_leaves_no_trace(processes: Processes) -> None:
    class Drawing(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            values = super().forward(batch)
            return {**values, "drawn": torch.rand(len(batch["y"]))}

    trainer, feed = make_trainer(processes, dropout=0.5, module=Drawing)
    other, _ = make_trainer(processes, dropout=0.5, module=Drawing)
    batches = feed.train_batches(0)
    two = [next(batches), next(batches)]
    torch.manual_seed(3)
    records = [other.step(batch) for batch in two]
    torch.manual_seed(3)
    first = trainer.step(two[0])
    before = take_random()
    evaluations = [trainer.evaluate(), trainer.evaluate()]
    assert take_random() == before
    assert evaluations[0] is not None
    assert evaluations[1] is not None
    assert evaluations[0].values == evaluations[1].values  # it draws the same each time
    assert trainer.module.training
    assert [first, trainer.step(two[1])] == records
    assert_equal(weights(trainer), weights(other))


def test_an_evaluation_can_be_stopped(processes: Processes) -> None:
    trainer, _ = make_trainer(processes)
    answers = iter([False, True])
    assert trainer.evaluate(lambda: next(answers)) is None
    assert trainer.module.training


def test_a_snapshot_puts_everything_back(processes: Processes) -> None:
    trainer, feed = make_trainer(processes, dropout=0.5)
    batches = feed.train_batches(0)
    several = [next(batches) for _ in range(6)]
    for batch in several[:2]:
        trainer.step(batch)
    snapshot = trainer.snapshot()
    found = []
    for _ in range(2):
        records = [trainer.step(batch) for batch in several[2:]]
        found.append((records, weights(trainer), copy.deepcopy(trainer.optimizer.state_dict()), take_random()))
        trainer.restore(snapshot)
        assert (trainer.steps, trainer.samples_seen) == (2, 16)
    assert found[0][0] == found[1][0]
    assert_equal(found[0][1], found[1][1])
    assert found[0][3] == found[1][3]
    for key, state in found[0][2]["state"].items():
        assert all(torch.equal(value, found[1][2]["state"][key][name]) for name, value in state.items())


# Memory


class Greedy(ToyModule):
    """Has no memory for more than so many samples, and draws before it finds out."""

    most = 3

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        values = super().forward(batch)
        if len(batch["y"]) > self.most:
            raise RuntimeError(NO_MEMORY)
        return values


def test_out_of_memory_halves_and_does_the_same_step_again(processes: Processes) -> None:
    greedy, feed = make_trainer(processes, dropout=0.5, module=Greedy)
    events: list[str] = []
    greedy.on_event = events.append
    modest, _ = make_trainer(processes, dropout=0.5, micro_batch_size=2)
    batches = feed.train_batches(0)
    for _ in range(3):
        batch = next(batches)
        state = torch.get_rng_state()
        record = greedy.step(batch)
        torch.set_rng_state(state)
        assert modest.step(batch) == record
    assert greedy.micro_batch_size == 2
    assert_equal(weights(greedy), weights(modest))  # the buffer that counts passes too
    assert [event.split(":")[0] for event in events] == [
        "out of memory at step 1 with micro-batches of 8",
        "out of memory at step 1 with micro-batches of 4",
    ]


@pytest.mark.parametrize(("policy", "most", "said"), [("stop", 3, 'out_of_memory = "stop"'), ("halve", 0, "a single")])
def test_what_cannot_be_halved_changes_nothing(processes: Processes, policy: str, most: int, said: str) -> None:
    class Hopeless(Greedy):
        pass

    Hopeless.most = most
    trainer, feed = make_trainer(processes, module=Hopeless, out_of_memory=policy)
    before, random = weights(trainer), take_random()
    with pytest.raises(DoesNotFitError, match=said):
        trainer.step(next(feed.train_batches(0)))
    assert_equal(weights(trainer), before)
    assert take_random() == random
    assert trainer.steps == 0


def test_an_evaluation_is_halved_too(processes: Processes) -> None:
    class Small(Greedy):
        most = 1

    trainer, _ = make_trainer(processes, module=Small)
    events: list[str] = []
    trainer.on_event = events.append
    whole, _ = make_trainer(processes)
    found, expected = trainer.evaluate(), whole.evaluate()
    assert found is not None
    assert expected is not None
    assert found.values == pytest.approx(dict(expected.values), rel=1e-6)
    assert trainer.micro_batch_size == 1
    assert [event.split(":")[0] for event in events] == [
        "out of memory in the evaluation after 0 samples with micro-batches of 4",
        "out of memory in the evaluation after 0 samples with micro-batches of 2",
    ]


def test_an_evaluation_that_is_halved_draws_what_it_would_have(processes: Processes) -> None:
    class Drawing(Greedy):
        most = 1

        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            drawn = torch.rand(1)
            values = super().forward(batch)
            return {**values, "loss": values["loss"] + drawn}

    trainer, _ = make_trainer(processes, module=Drawing)
    modest, _ = make_trainer(processes, module=Drawing, micro_batch_size=1)
    found, expected = trainer.evaluate(), modest.evaluate()
    assert found is not None
    assert expected is not None
    assert found.values == expected.values


def test_a_snapshot_leaves_out_what_never_changes(processes: Processes) -> None:
    class Frozen(ToyModule):
        def __init__(self, *options: Any) -> None:
            super().__init__(*options)
            self.register_buffer("encoder", torch.zeros(1000), persistent=False)

    trainer, _ = make_trainer(processes, module=Frozen)
    kept = trainer.snapshot().tensors
    assert "encoder" not in kept
    assert kept.keys() == trainer.module.state_dict().keys()


# Numbers that are none


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_is_never_descended(processes: Processes, what: str) -> None:
    class Breaking(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            values = super().forward(batch)
            if self.num_passes < 3:
                return values
            if what == "loss":
                return {**values, "loss": values["loss"] * torch.nan}
            return {**values, "loss": values["loss"] + (self.body[0].weight * 0).abs().sqrt().sum()}  # type: ignore[index,operator,union-attr]

    trainer, feed = make_trainer(processes, dropout=0.5, module=Breaking)
    batches = feed.train_batches(0)
    for _ in range(2):
        trainer.step(next(batches))
    before, state, random = weights(trainer), copy.deepcopy(trainer.optimizer.state_dict()), take_random()
    with pytest.raises(NonFiniteError, match="the loss is nan" if what == "loss" else "norm is nan"):
        trainer.step(next(batches))
    assert_equal(weights(trainer), before)
    assert take_random() == random
    assert (trainer.steps, trainer.samples_seen) == (2, 16)
    for key, each in state["state"].items():
        found = trainer.optimizer.state_dict()["state"][key]
        assert all(torch.equal(value, found[name]) for name, value in each.items())


def test_a_value_must_be_a_number_a_sample(processes: Processes) -> None:
    class Averaging(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return {"loss": super().forward(batch)["loss"].mean()}

    trainer, feed = make_trainer(processes, module=Averaging)
    with pytest.raises(UsageError, match=r"'loss' has shape \(\), expected \(8,\)"):
        trainer.step(next(feed.train_batches(0)))


def test_autocast_keeps_parameters_in_float32() -> None:
    with open_processes(SETTINGS, "cpu") as full:
        trainer, feed = make_trainer(full)
        expected = trainer.step(next(feed.train_batches(0)))
    settings = dataclasses.replace(SETTINGS, precision="bf16", warmup_samples=0)
    with open_processes(settings, "cpu") as half:
        feed = ToyFeed(settings)
        dtypes: list[torch.dtype] = []
        module = Toy(dropout=0.0).build(feed.inputs, 0)
        module.body.register_forward_hook(lambda *each: dtypes.append(each[2].dtype))  # type: ignore[union-attr]
        trainer = Trainer(module, feed, settings, half)
        record = trainer.step(next(feed.train_batches(0)))
        trainer.evaluate()
    assert set(dtypes) == {torch.bfloat16}
    assert {each.dtype for each in module.parameters()} == {torch.float32}
    assert {each.dtype for state in trainer.optimizer.state.values() for each in state.values()} == {torch.float32}
    assert record.values["loss"] == pytest.approx(expected.values["loss"], rel=0.02)
    assert record.values["loss"] != expected.values["loss"]


def batches_of(feed: ToyFeed, num: int) -> list[FeedBatch]:
    found = feed.train_batches(0)
    return [next(found) for _ in range(num)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch.jit
def test_compiled_it_keeps_its_names(processes: Processes) -> None:
    trainer, feed = make_trainer(processes, compile=True)
    plain, _ = make_trainer(processes)
    with torch.compiler.set_stance("force_eager"):  # a compiler of C++ would take half a minute
        for batch in batches_of(feed, 2):
            assert trainer.step(batch).values == pytest.approx(plain.step(batch).values, rel=1e-4)
    assert trainer.module._compiled_call_impl is not None
    assert list(trainer.module.state_dict()) == list(plain.module.state_dict())


class TwoModes(ToyModule):
    """Says what two modes of it would lose, of which the ratio of means is no mean of ratios."""

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        values = super().forward(batch)
        number = torch.arange(len(values["loss"])).float() + 1
        return {**values, "fine": number, "coarse": number.square()}


def test_the_ratio_of_two_modes_is_of_means_over_the_whole_set(processes: Processes) -> None:
    trainer, _ = make_trainer(processes, module=TwoModes)
    values = trainer.evaluate().values
    assert values["ratio"] == values["coarse"] / values["fine"]
    record = trainer.step(next(ToyFeed(SETTINGS).train_batches(0)))
    assert record.values["ratio"] == pytest.approx(sum(n * n for n in range(1, 9)) / sum(range(1, 9)))
