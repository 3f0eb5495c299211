"""Which cells are run together, again after a run was stopped, and what is told of the time that is left."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from signal_cache import build_signal_cache, write_images

from fovcache.builder.progress import Progress
from fovcache.errors import DamageError
from fovcache.probes.config import AblationConfig, HeadChoice, RepresentationChoice
from fovcache.probes.heads.problem import Problem
from fovcache.probes.heads.trained import LinearHead
from fovcache.probes.result import Ablation, Trial
from fovcache.probes.run import run_ablation
from fovcache.probes.running import memory
from fovcache.probes.running.batches import BY_ITSELF, Batch, banks, side_by_side
from fovcache.probes.running.pace import Pace
from fovcache.probes.running.task import Task, open_task
from fovcache.probes.tables.trials_table import trials_parquet

LINEAR = HeadChoice(kind="linear", settings={"epochs": 3, "learning_rates": [0.01], "weight_decays": [0.01]})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cache of 60 samples."""
    folder = tmp_path_factory.mktemp("made")
    build_signal_cache(folder, write_images(folder / "images", 60))
    return folder


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many problems each call of a linear head is given."""
    found: list[int] = []
    real = LinearHead.fit

    def fit(self: LinearHead, problems: Sequence[Problem]) -> Any:
        found.append(len(problems))
        return real(self, problems)

    monkeypatch.setattr(LinearHead, "fit", fit)
    return found


def config(folder: Path, **fields: Any) -> AblationConfig:
    some = (RepresentationChoice(name="simple_stats"), RepresentationChoice(name="stats"))
    experiments = {"all": ("**",), "noise": ("noise.*",)}
    chosen = {"representations": some, "experiments": experiments, "seeds": (0, 1), "single_layers": False}
    return AblationConfig(name="made", cache="cache", folder=folder, **{**chosen, **fields})


def numbers(ablation: Ablation) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in ablation.trials]


def sizes(task: Task, index: int) -> int:
    return task.widths[index]


def test_batches_hold_each_cell_once_and_one_representation(made: Path) -> None:
    task = open_task(config(made))
    found = side_by_side(task, range(len(task.cells)))
    assert sorted(index for batch in found for index in batch.cells) == list(range(len(task.cells)))
    assert all(batch.cells == batch.wanted for batch in found)
    assert [{task.cells[index].representation.label for index in batch.cells} for batch in found] == [
        {"simple_stats"},
        {"stats"},
    ]


def test_banks_are_cut_by_size_and_decided_by_what_is_missing_alone(made: Path) -> None:
    task = open_task(config(made))
    missing = list(range(len(task.cells)))
    found = banks(task, missing, lambda index: sizes(task, index), 60)
    assert sorted(index for bank in found for index in bank) == missing
    assert all(sum(sizes(task, index) for index in bank) <= 60 for bank in found)
    assert len(found) > 2
    assert banks(open_task(config(made)), missing, lambda index: sizes(task, index), 60) == found
    assert banks(task, missing, lambda index: sizes(task, index), 1) == [(index,) for bank in found for index in bank]
    assert len(banks(task, missing, lambda index: sizes(task, index), 1 << 40)) == 1  # of all representations


def test_what_is_run_again_after_a_process_ended() -> None:
    cells = Batch(cells=(3, 4, 5), wanted=(3, 4, 5))
    rest = cells.without([4])
    assert rest is not None
    assert [each.cells for each in rest.again(is_trained=False)] == [(3,), (5,)]
    assert rest.again(is_trained=False)[0].again(is_trained=False) == []
    assert cells.without([3, 4, 5]) is None
    (bank,) = rest.again(is_trained=True)
    assert (bank.cells, bank.wanted, bank.notes) == ((3, 4, 5), (3, 5), ())  # the whole of it, for the same bits
    alone = bank.again(is_trained=True)
    assert [(each.cells, each.notes) for each in alone] == [((3,), (BY_ITSELF,)), ((5,), (BY_ITSELF,))]
    assert alone[0].again(is_trained=True) == []
    (single,) = Batch(cells=(7,), wanted=(7,)).again(is_trained=True)
    assert single.notes == ()
    assert single.again(is_trained=True) == []


class Stop(Exception):
    """Somebody ends the run."""


def stop_at(num: int) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if progress.done == num:
            raise Stop

    return show


def test_a_bank_of_which_a_part_is_missing_is_trained_whole_and_ends_with_the_same_bits(
    made: Path, tmp_path: Path, fitted: list[int]
) -> None:
    chosen = config(made, head=LINEAR)
    whole = run_ablation(chosen, tmp_path / "whole")
    num = len(whole.trials)
    assert fitted == [num]
    with pytest.raises(Stop):
        run_ablation(chosen, tmp_path / "out", stop_at(3))
    kept = (tmp_path / "out" / "trials.jsonl").read_bytes()
    assert kept.count(b"\n") == 3
    again = run_ablation(chosen, tmp_path / "out")
    assert fitted == [num] * 3
    assert numbers(again) == numbers(whole)
    assert (tmp_path / "out" / "trials.jsonl").read_bytes().startswith(kept)
    plans = [(tmp_path / name / "banks.jsonl").read_text() for name in ("whole", "out")]
    assert plans[0] == plans[1]
    run_ablation(chosen, tmp_path / "out")
    assert len(fitted) == 3


def test_a_changed_configuration_trains_only_what_is_new(made: Path, tmp_path: Path, fitted: list[int]) -> None:
    first = run_ablation(config(made, head=LINEAR), tmp_path / "out")
    more = config(made, head=LINEAR, seeds=(0, 1, 2))
    with pytest.raises(Stop):
        run_ablation(more, tmp_path / "out", stop_at(len(first.trials) + 2))
    again = run_ablation(more, tmp_path / "out")
    new = len({trial.key for trial in again.trials} - {trial.key for trial in first.trials})  # each once
    assert fitted == [len(first.trials), new, new]
    assert [trial for trial in numbers(again) if trial.seed < 2] == numbers(first)
    other = config(made, head=LINEAR, seeds=(0, 3), representations=(RepresentationChoice(name="stats"),))
    with pytest.raises(Stop):
        run_ablation(other, tmp_path / "out", stop_at(7))
    fewer = replace(other, experiments={"all": ("**",)})  # what was planned is not all asked for any more
    assert run_ablation(fewer, tmp_path / "out").failures == ()


def test_half_a_plan_is_cut_off_and_a_damaged_one_named(made: Path, tmp_path: Path) -> None:
    chosen, path = config(made, head=LINEAR), tmp_path / "out" / "banks.jsonl"
    whole = run_ablation(chosen, tmp_path / "out")
    plan = path.read_bytes()
    path.write_bytes(plan + b'{"keys":["0')
    assert numbers(run_ablation(chosen, tmp_path / "out")) == numbers(whole)
    assert path.read_bytes() == plan
    path.write_bytes(b'{"kes":[]}\n')
    with pytest.raises(DamageError, match=r"banks\.jsonl is not what"):
        run_ablation(chosen, tmp_path / "out")


def test_a_bank_that_cannot_be_trained_is_trained_head_by_head(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LinearHead.fit

    def fit(self: LinearHead, problems: Sequence[Problem]) -> Any:
        if any(problem.x_train_ND.shape[1] == 28 for problem in problems):
            raise ZeroDivisionError("no luck")
        return real(self, problems)

    monkeypatch.setattr(LinearHead, "fit", fit)
    ablation = run_ablation(config(made, head=LINEAR), tmp_path / "out")
    assert {(each.representation, each.experiment, each.reason) for each in ablation.failures} == {
        ("stats", "all", "ZeroDivisionError: no luck")
    }
    assert {trial.notes[-1] for trial in ablation.trials} == {
        "trained by itself, since training it with others failed: ZeroDivisionError: no luck"
    }


def test_smaller_banks_where_little_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    found = []
    for free in (1 << 40, 1 << 30, 1 << 20, 0):
        monkeypatch.setattr(memory, "free_host_bytes", lambda free=free: free)
        found.append(memory.bank_bytes(torch.device("cpu")))
    assert found == [1 << 30, 1 << 28, 1 << 20, 1 << 20]


def test_time_left_is_by_what_cells_cost_and_what_is_there_already_says_nothing() -> None:
    now = [0.0]
    pace = Pace(100, lambda: now[0])
    pace.skip(40)
    assert pace.left_s is None
    now[0] = 10
    pace.done(20)
    assert pace.left_s == pytest.approx(20)
    pace.done(40)
    assert pace.left_s == 0


def test_trials_are_a_table_of_parquet_too(made: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    ablation = run_ablation(config(made), tmp_path / "out")
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert len(rows) == len(ablation.trials)
    for row, trial in zip(rows, ablation.trials, strict=True):
        assert json.loads(row.pop("setting")) == trial.setting
        assert (tuple(row.pop("layers")), tuple(row.pop("notes"))) == (trial.layers, trial.notes)
        assert row == {name: getattr(trial, name) for name in row}
    empty = pyarrow.parquet.read_table(io.BytesIO(trials_parquet([])))
    assert empty.num_rows == 0
    assert set(empty.column_names) == {*rows[0], "setting", "layers", "notes"}
