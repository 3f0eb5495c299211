"""The plan of a run: how many of everything, how long it takes, and how sure that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from example_trainings import made_run
from scipy import stats
from train_configs import train_config

from fovcache.probes.train.plan import (
    Warmup,
    make_plan,
    marks,
    num_checkpoints,
    num_evaluations,
    plan_against_actual,
)
from fovcache.probes.train.result import Plan, Spent
from fovcache.probes.train.settings import TrainSettings


def settings_of(**values: int) -> TrainSettings:
    """100 samples in steps of 8."""
    given = {"samples": 100, "batch_size": 8, "evaluate_every": 20, "checkpoint_every": 40, "keep": 1, **values}
    return train_config("cache", given).train


WARMUP = Warmup(
    compute_s=(1.0, 1.2),
    data_s=(0.1, 0.1),
    other_s=(0.01, 0.01),
    dropped_s=(9.0, 2.0, 2.0),
    evaluation_s=(0.3, 0.5),
    batches_per_evaluation=4,
    checkpoint_s=(2.0, 2.0),
    start_s=7.0,
    checkpoint_bytes=1000,
    log_bytes_per_step=10,
    memory_bytes=12345,
)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (20, (24, 40, 64, 80, 104)),  # 100 is crossed by the last step
        (8, (8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104)),
        (3, (8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104)),  # a step crosses two or three
        (104, (104,)),
        (1000, (104,)),
    ],
)
def test_marks_are_where_multiples_are_crossed_and_at_the_end(every: int, expected: tuple[int, ...]) -> None:
    assert marks(settings_of(), every) == expected


def test_a_plan_scales_each_part_by_how_many_there_will_be() -> None:
    plan = make_plan(settings_of(), WARMUP)
    assert (plan.steps, plan.samples, plan.evaluations, plan.checkpoints) == (13, 104, 6, 3)
    assert plan.spent.compute_s == pytest.approx(13 * 1.1)
    assert plan.spent.data_s == pytest.approx(13 * 0.1)
    assert plan.spent.evaluation_s == pytest.approx(6 * 4 * 0.4)
    assert plan.spent.checkpoint_s == pytest.approx(3 * 2.0)
    assert plan.spent.other_s == pytest.approx(13 * 0.01 + 7)
    assert (plan.warmup_steps, plan.dropped_steps, plan.memory_bytes) == (2, 3, 12345)
    assert plan.disk_bytes == 2 * 1000 + 130  # the one that stays, and the next before that one goes
    assert make_plan(settings_of(checkpoint_every=1000), WARMUP).disk_bytes == 1000 + 130
    assert make_plan(settings_of(keep=7), WARMUP).disk_bytes == 3 * 1000 + 130


def test_the_interval_adds_the_variances_of_parts() -> None:
    settings = settings_of(evaluate_every=1000)
    plan = make_plan(settings, replace(WARMUP, evaluation_s=(0.4, 0.4)))
    assert plan.wall_ci95_s is not None
    variance = 0.02 * 13 * (13 / 2 + 1)  # of steps of 1.0 and 1.2 s
    half = stats.t.ppf(0.975, 1) * variance**0.5
    assert plan.wall_ci95_s[1] - plan.spent.wall_s == pytest.approx(half)
    assert plan.wall_ci95_s[0] == pytest.approx(plan.spent.wall_s - half)
    none = make_plan(settings, replace(WARMUP, compute_s=(1.0, 1.0), evaluation_s=(0.4,)))
    assert none.wall_ci95_s is None


def test_intervals_hold_the_wall_time_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    settings = settings_of(samples=800, evaluate_every=160, checkpoint_every=400)
    num_batches = num_evaluations(settings) * 4

    def times(mean: float, sd: float, num: int) -> np.ndarray:
        return chance.normal(mean, sd, num)

    held = []
    for _ in range(1500):
        warmup = replace(
            WARMUP,
            compute_s=tuple(times(1, 0.1, 8)),
            data_s=(0.0,) * 8,
            other_s=(0.0,) * 8,
            evaluation_s=tuple(times(0.5, 0.05, 4)),
            checkpoint_s=tuple(times(2, 0.3, 2)),
            start_s=0.0,
        )
        found = make_plan(settings, warmup).wall_ci95_s
        assert found is not None
        steps, evaluations = times(1, 0.1, settings.num_steps), times(0.5, 0.05, num_batches)
        actual = steps.sum() + evaluations.sum() + times(2, 0.3, num_checkpoints(settings)).sum()
        held.append(found[0] <= actual <= found[1])
    assert 0.93 < np.mean(held) < 0.97


def test_plan_and_actual_stand_beside_each_other_for_a_run_in_one_go() -> None:
    spent = Spent(compute_s=10, data_s=1, evaluation_s=2, checkpoint_s=0, other_s=1)
    planned = replace(spent, compute_s=8, data_s=0)
    base = made_run()
    assert base.plan is not None
    plan: Plan = replace(base.plan, spent=planned, steps=base.steps)
    run = replace(base, spent=spent, plan=plan)
    rows = {row.part: row for row in plan_against_actual(run)}
    assert list(rows) == ["compute", "data", "evaluation", "checkpoint", "other", "wall"]
    assert (rows["compute"].ratio, rows["data"].ratio, rows["wall"].actual_s) == (1.25, None, 14)
    for other in (replace(run, num_resumed=1), replace(run, steps=run.steps - 1), replace(run, plan=None)):
        assert plan_against_actual(other) == ()
