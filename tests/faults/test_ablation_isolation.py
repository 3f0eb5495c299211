"""Ablations whose cells end the process that runs them, or never end: the others go on, and nothing else changes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from signal_cache import build_signal_cache, write_images

from fovcache.builder.progress import Progress
from fovcache.errors import UsageError
from fovcache.probes.config import AblationConfig, ControlChoice, HeadChoice, RepresentationChoice
from fovcache.probes.result import Ablation
from fovcache.probes.run import run_ablation
from fovcache.probes.running.batches import BY_ITSELF

RIDGE = HeadChoice()
LINEAR = HeadChoice(kind="linear", settings={"epochs": 2, "learning_rates": [0.01], "weight_decays": [0.01]})
FAULTY = """
import ctypes, os, signal, time
from fovcache.probes.heads.{module} import {head}

real = {head}.fit

def fit(self, problems):
    for width in (problem.x_train_ND.shape[1] for problem in problems):
        {act}
    return real(self, problems)

{head}.fit = fit
"""
"""What every new process of this test does first: Python runs a module of the name `sitecustomize`."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cache of 60 samples."""
    folder = tmp_path_factory.mktemp("made")
    build_signal_cache(folder, write_images(folder / "images", 60))
    return folder


@pytest.fixture
def inject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`inject(head, act)`: a line of code that processes run for each `width` of what the head is fitted on."""

    def inject(head: HeadChoice, act: str) -> None:
        module, name = ("ridge", "RidgeHead") if head.kind == "ridge" else ("trained", "LinearHead")
        (tmp_path / "faults").mkdir()
        text = FAULTY.format(module=module, head=name, act=act)
        (tmp_path / "faults" / "sitecustomize.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "faults")

    return inject


def config(folder: Path, head: HeadChoice) -> AblationConfig:
    """Ten cells: of 5, 10, 15, 20 and again 5 numbers, each with two seeds."""
    return AblationConfig(
        name="made",
        cache="cache",
        folder=folder,
        seeds=(0, 1),
        representations=(RepresentationChoice(name="simple_stats"),),
        experiments={
            "one": ("signal",),
            "two": ("noise.[01]",),
            "three": ("noise.*",),
            "four": ("**",),
            "other": ("noise.0",),
        },
        single_layers=False,
        controls=ControlChoice(shuffled_labels=False, random_layers=False),
        head=head,
    )


def numbers(ablation: Ablation) -> dict[tuple[str, int], object]:
    trials = (replace(trial, seconds=0.0) for trial in ablation.trials)
    return {(trial.experiment, trial.seed): trial for trial in trials}


def processes() -> list[psutil.Process]:
    """Those that run trials for this one."""
    return [each for each in psutil.Process().children() if "fovcache.probes.running.worker" in each.cmdline()]


@pytest.mark.parametrize(("head", "at"), [(RIDGE, 3), (LINEAR, 0)], ids=["ridge", "linear"])
def test_a_process_that_is_killed_costs_nothing_but_time(made: Path, tmp_path: Path, head: HeadChoice, at: int) -> None:
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if not killed and progress.done == at and (at or progress.note):
            killed.extend(each.pid for each in processes())
            os.kill(killed[0], signal.SIGKILL)

    ablation = run_ablation(config(made, head), tmp_path / "out", kill, isolate=True)
    assert len(killed) == 1
    assert ablation.failures == ()
    assert processes() == []
    alone = run_ablation(config(made, head), tmp_path / "alone")
    assert numbers(ablation) == numbers(alone)
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        each.name for each in (tmp_path / "alone").iterdir()
    }


def test_cells_that_end_their_process_are_told_with_how_and_the_others_go_on(
    made: Path, tmp_path: Path, inject: Callable[..., None]
) -> None:
    whole = numbers(run_ablation(config(made, RIDGE), tmp_path / "whole"))
    inject(
        RIDGE,
        "{10: lambda: os.kill(os.getpid(), signal.SIGKILL), 15: lambda: ctypes.string_at(0), "
        "20: lambda: time.sleep(600)}.get(width, int)()",
    )
    some = replace(config(made, RIDGE), seeds=(1,))
    ablation = run_ablation(some, tmp_path / "out", isolate=True, timeout_s=4)
    reasons = {each.experiment: each.reason for each in ablation.failures}
    assert reasons == {
        "two": "the process that ran it was ended by SIGKILL (out of memory?)",
        "three": "the process that ran it was ended by SIGSEGV",
        "four": "the process that ran it was ended: nothing came of it for 4 s",
    }
    assert ablation.exit_status == 1
    assert numbers(ablation) == {key: trial for key, trial in whole.items() if key in {("one", 1), ("other", 1)}}
    assert processes() == []


def test_heads_that_were_trained_with_one_that_ends_their_process_are_trained_by_themselves(
    made: Path, tmp_path: Path, inject: Callable[..., None]
) -> None:
    inject(LINEAR, "width == 15 and os.abort()")
    some = replace(config(made, LINEAR), seeds=(0,))
    ablation = run_ablation(some, tmp_path / "out", isolate=True)
    (failure,) = ablation.failures
    assert (failure.experiment, failure.reason) == ("three", "the process that ran it was ended by SIGABRT")
    assert {trial.notes[-1] for trial in ablation.trials} == {BY_ITSELF}
    assert len(ablation.trials) == 4
    assert any(BY_ITSELF in warning for warning in ablation.warnings)


def test_a_time_limit_needs_a_process_to_end(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a time limit needs a process"):
        run_ablation(config(made, RIDGE), tmp_path / "out", timeout_s=5)
    with pytest.raises(UsageError, match="expected more than 0"):
        run_ablation(config(made, RIDGE), tmp_path / "out", timeout_s=0, isolate=True)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_leaves_no_process(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no layer matches"):
        run_ablation(replace(config(made, RIDGE), experiments={"e": ("sgnal",)}), tmp_path / "out", isolate=True)
    assert processes() == []
