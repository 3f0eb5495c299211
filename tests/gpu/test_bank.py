"""Heads that are trained on a GPU are those that are trained on the CPU: same weights, order and masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_heads import made_problem

from fovcache.probes.heads import bank
from fovcache.probes.heads.problem import Problem
from fovcache.probes.heads.trained import LinearHead, MlpHead

pytestmark = pytest.mark.needs_cuda

LINEAR = LinearHead(learning_rates=(1e-2, 1e-3), weight_decays=(0.0, 1.0), patience=4, epochs=30, batch_size=64)
MLP = MlpHead(hidden=(64, 32), patience=4, plateau_patience=1, epochs=30, batch_size=64)


def on_gpu(problem: Problem) -> Problem:
    return replace(problem, x_train_ND=problem.x_train_ND.cuda(), x_validation_MD=problem.x_validation_MD.cuda())


def problems() -> list[Problem]:
    """Of two numbers of rows and three of columns."""
    shapes = [(300, 20), (300, 33), (301, 20), (300, 64)]
    return [made_problem(rows, dims, seed=seed, apart=2.0) for seed, (rows, dims) in enumerate(shapes)]


@pytest.mark.parametrize("head", [LINEAR, MLP, replace(MLP, dropout=0.2, learning_rates=(1e-2, 1e-3))])
def test_heads_on_the_gpu_are_those_on_the_cpu(head: LinearHead) -> None:
    """To the last epoch heads drift apart by rounding; after a few steps they have not."""
    head = replace(head, epochs=3)
    made = problems()
    for problem, here, there in zip(made, head.fit(made), head.fit([on_gpu(each) for each in made]), strict=True):
        assert here.best_epochs == there.best_epochs
        x = problem.x_validation_MD
        assert there.networks[0].device.type == "cuda"
        assert np.abs(here.probabilities(x) - there.probabilities(x.cuda())).max() < 1e-2


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("head", [LINEAR, MLP])
def test_separable_classes_are_learned(head: LinearHead, precision: str) -> None:
    made = [on_gpu(each) for each in problems()]
    for problem, fitted in zip(made, replace(head, precision=precision, epochs=60).fit(made), strict=True):
        right = (fitted.predict(problem.x_validation_MD) == problem.y_validation_M).mean(1)
        assert right.max() > 0.95
        assert np.isfinite(fitted.probabilities(problem.x_validation_MD)).all()


def test_heads_beyond_its_memory_are_trained_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [on_gpu(each) for each in problems()]
    whole = LINEAR.fit(made)
    monkeypatch.setattr(bank, "_SHARE", 1e-9)
    jobs = list(bank._jobs_of_device(made, range(4), [(1e-3, 0.0)], LINEAR._plan()))
    assert [len(job.problems) for job in jobs] == [1, 1, 1, 1]
    for one, other in zip(whole, LINEAR.fit(made), strict=True):
        assert one.best_epochs == other.best_epochs


def test_a_step_waits_for_nothing_on_the_device() -> None:
    """Only the accuracies of an epoch are waited for."""
    from fovcache.probes.heads.training import Setting, Training

    made = [on_gpu(each) for each in problems()[:2]]
    training = Training(made, [Setting(problem=number, rate=1e-3, decay=0.0) for number in (0, 1)], MLP._plan())
    classes = torch.stack([torch.from_numpy(each.y_train_N[:64]) for each in made]).cuda()
    rows = [each.x_train_ND[:64].float()[None] for each in made]
    with torch.no_grad():
        training._step(rows, classes, [1e-3, 1e-3])
        torch.cuda.set_sync_debug_mode("error")
        try:
            training._step(rows, classes, [1e-3, 1e-3])
        finally:
            torch.cuda.set_sync_debug_mode("default")
