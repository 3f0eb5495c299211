"""The verdict: what each condition needs, what leaves it open, and how often it claims what is not so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fovcache.errors import UsageError
from fovcache.probes.statistics.equivalence import equivalence, mean_interval
from fovcache.probes.train.config import VerdictChoice
from fovcache.probes.train.result import BASE, CONTROL, FAILED, MAIN, STOPPED, Run, Verdict
from fovcache.probes.train.suite.verdict import judge, judge_control
from fovcache.probes.train.suite.verdict_truth import WORLDS, run_of, simulate, simulate_ratio

CHOICE = VerdictChoice()
LOSSES: Mapping[tuple[str, str], Sequence[float]] = {
    (BASE, MAIN): (0.010, 0.012, 0.009),
    ("coarse", MAIN): (1.30, 1.31, 1.29),
    ("coarse_matched", MAIN): (1.29, 1.30, 1.295),
    ("random_query", MAIN): (1.31, 1.30, 1.30),
    ("shuffled_query", MAIN): (1.35, 1.32, 1.33),
    (BASE, CONTROL): (0.700, 0.710, 0.695),
    ("coarse", CONTROL): (0.702, 0.711, 0.694),
}


def runs_of(changes: Mapping[tuple[str, str], Sequence[float]] = {}) -> list[Run]:
    """By arm and task, the loss of each seed; an arm with none is not there."""
    every = {**LOSSES, **changes}
    return [run_of(arm, task, seed, loss) for (arm, task), row in every.items() for seed, loss in enumerate(row)]


def holds(verdict: Verdict) -> list[bool | None]:
    return [each.holds for each in verdict.conditions]


def test_all_conditions_hold_and_a_benefit_is_claimed() -> None:
    verdict = judge(runs_of(), CHOICE)
    assert verdict.helps
    assert verdict.sentence == "a finer look helps: all 5 conditions hold"
    better = verdict.conditions[0]
    expected = stats.ttest_rel(LOSSES[BASE, MAIN], LOSSES["coarse", MAIN]).confidence_interval(0.95)
    assert better.ci == pytest.approx((expected.low, expected.high))
    assert better.mean == pytest.approx(np.subtract(LOSSES[BASE, MAIN], LOSSES["coarse", MAIN]).mean())
    assert better.per_seed == pytest.approx(np.subtract(LOSSES[BASE, MAIN], LOSSES["coarse", MAIN]))
    assert better.said.startswith("base − coarse = -1.29 (95 % interval ")
    control = verdict.conditions[4]
    assert (control.level, control.neutral, control.within) == (0.9, 1.0, (0.97, 1.03))


@pytest.mark.parametrize(
    ("changes", "index", "state"),
    [
        ({("coarse", MAIN): (0.011, 0.010, 0.010)}, 0, False),
        ({("coarse_matched", MAIN): (0.02, 0.001, 0.01)}, 1, False),
        ({("coarse_matched", MAIN): (0.001, 0.0012, 0.0009)}, 1, False),
        ({("shuffled_query", MAIN): (0.011, 0.010, 0.010)}, 2, False),
        ({("random_query", MAIN): (0.30, 0.31, 0.295)}, 3, False),
        ({("random_query", MAIN): (2.30, 2.31, 2.295)}, 3, True),
        ({("coarse", CONTROL): (0.770, 0.781, 0.764)}, 4, False),
        ({("coarse", CONTROL): (0.630, 0.640, 0.626)}, 4, False),
        ({("coarse", CONTROL): (0.72, 0.69, 0.70)}, 4, False),
        ({("coarse_matched", MAIN): ()}, 1, None),
        ({("random_query", MAIN): ()}, 3, None),
        ({("coarse", CONTROL): ()}, 4, None),
        ({("shuffled_query", MAIN): (1.3, 1.3)}, 2, None),
        ({("shuffled_query", MAIN): LOSSES[BASE, MAIN]}, 2, None),
        ({("shuffled_query", MAIN): [loss + 0.5 for loss in LOSSES[BASE, MAIN]]}, 2, None),
        ({("coarse", CONTROL): LOSSES[BASE, CONTROL]}, 4, None),
        ({("coarse", CONTROL): (0.702, -0.711, 0.694)}, 4, None),
    ],
)
def test_one_condition_fails_or_is_open_and_nothing_is_claimed(
    changes: Mapping[tuple[str, str], Sequence[float]], index: int, state: bool | None
) -> None:
    verdict = judge(runs_of(changes), CHOICE)
    assert verdict.conditions[index].holds is state
    assert verdict.helps is (state is True)
    if state is not True:
        words = "does not hold" if state is False else "cannot be asked"
        assert verdict.sentence == f"no benefit is claimed; {words}: {verdict.conditions[index].name}"


def test_what_is_open_says_why() -> None:
    def said(changes: Mapping[tuple[str, str], Sequence[float]], index: int) -> str:
        return judge(runs_of(changes), CHOICE).conditions[index].said

    assert "there is no run of random_query" in said({("random_query", MAIN): ()}, 3)
    assert "shuffled_query and base share 2 seeds, 3 are needed" in said({("shuffled_query", MAIN): (1.3, 1.4)}, 2)
    assert "as if the setting were not read" in said({("shuffled_query", MAIN): LOSSES[BASE, MAIN]}, 2)
    same = {("shuffled_query", MAIN): [loss + 0.5 for loss in LOSSES[BASE, MAIN]]}
    assert "all 3 differences are equal" in said(same, 2)


@pytest.mark.parametrize("state", [FAILED, STOPPED])
def test_a_seed_that_did_not_end_well_is_not_left_out(state: str) -> None:
    runs = runs_of({("coarse", MAIN): (1.30, 1.31, 1.29, 1.30), (BASE, MAIN): (0.01, 0.012, 0.009, 0.011)})
    runs = [replace(run, state=state) if (run.arm, run.task, run.seed) == ("coarse", MAIN, 3) else run for run in runs]
    verdict = judge(runs, CHOICE)
    assert holds(verdict) == [None, True, True, None, True]
    assert f"coarse: seed 3 {state}" in verdict.conditions[0].said
    assert not verdict.helps


@pytest.mark.parametrize(("arm", "index"), [("coarse", 0), ("shuffled_query", 2), ("random_query", 3)])
def test_arms_that_saw_other_numbers_of_samples_are_not_compared(arm: str, index: int) -> None:
    runs = [replace(run, samples_seen=2) if run.arm == arm and run.task == MAIN else run for run in runs_of()]
    verdict = judge(runs, CHOICE)
    assert verdict.conditions[index].holds is None
    assert f"they saw different numbers of samples (base 1, {arm} 2)" in verdict.conditions[index].said
    assert not verdict.helps


def test_an_arm_that_computed_for_less_time_is_not_matched() -> None:
    def with_compute(compute_s: float, num_resumed: int = 0) -> list[Run]:
        return [
            replace(run, spent=replace(run.spent, compute_s=compute_s), num_resumed=num_resumed)
            if run.arm == "coarse_matched"
            else run
            for run in runs_of()
        ]

    short = judge(with_compute(0.5), CHOICE).conditions[1]
    assert short.holds is None
    assert "computed for 0.50 of the base's time" in short.said
    assert judge(with_compute(1.5), CHOICE).conditions[1].said.endswith("computed for 1.50 of the base's time")
    assert "not known, since runs were resumed" in judge(with_compute(0.5, 1), CHOICE).conditions[1].said


def test_runs_with_other_validation_sets_are_refused() -> None:
    runs = runs_of()
    runs = [replace(run, validation_hash="ab") if run.arm == "coarse" and run.seed == 1 else run for run in runs]
    for judged in (judge, judge_control):
        with pytest.raises(UsageError, match=r"different validation sets .*coarse seed 1: ab"):
            judged(runs, CHOICE)
    controls = [replace(run, validation_hash="cd") if run.task == CONTROL else run for run in runs_of()]
    assert judge(controls, CHOICE).helps  # of another task


def test_the_control_has_no_benefit() -> None:
    verdict = judge_control(runs_of(), CHOICE)
    assert verdict is not None
    assert not verdict.helps
    assert verdict.sentence.startswith("no benefit on the control task: coarse / base = 1.0009 on the control (90 %")
    wide = judge_control(runs_of({("coarse", CONTROL): (0.72, 0.69, 0.70)}), CHOICE)
    assert wide is not None
    assert wide.sentence.startswith("no benefit on the control task is shown, nor that there is none: ")
    found = judge_control(runs_of({("coarse", CONTROL): (0.770, 0.781, 0.7645)}), CHOICE)
    assert found is not None
    assert found.helps
    assert "where there should be none" in found.sentence
    assert judge_control([run for run in runs_of() if run.task == MAIN], CHOICE) is None


def test_two_modes_of_one_model_are_a_diagnostic_and_no_condition() -> None:
    runs = [
        replace(
            run,
            evaluations=(
                replace(run.evaluations[0], values={**run.final, "coarse": 0.8 + run.seed / 100, "fine": 0.7}),
            ),
        )
        for run in runs_of()
    ]
    verdict, control = judge(runs, CHOICE), judge_control(runs, CHOICE)
    assert control is not None
    assert len(verdict.conditions) == 5
    for each in (*verdict.diagnostics, *control.diagnostics):
        assert each.holds is None
        assert each.name.startswith("diagnostic, biased: ")
        assert each.said.startswith("coarse/fine = 1.157")
        assert each.per_seed == pytest.approx([0.8 / 0.7, 0.81 / 0.7, 0.82 / 0.7])
    assert not judge(runs_of(), CHOICE).diagnostics


def test_equivalence_is_two_one_sided_tests() -> None:
    chance = np.random.default_rng(0)
    for num in (3, 5):
        for sd in (0.002, 0.01, 0.03):
            logs = chance.normal(0.005, sd, num)
            above = stats.ttest_1samp(logs, math.log(0.97), alternative="greater").pvalue
            below = stats.ttest_1samp(logs, math.log(1.03), alternative="less").pvalue
            found, interval = equivalence(np.exp(logs).tolist(), 0.03)
            assert found is bool(max(above, below) < 0.05)
            assert interval.mean == pytest.approx(math.exp(logs.mean()))


def test_mean_intervals_are_scipys_and_not_clipped() -> None:
    values = [-3.0, -7.0, -5.5, -4.0]
    for level in (0.9, 0.95):
        expected = stats.ttest_1samp(values, 0).confidence_interval(level)
        found = mean_interval(values, level)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_false_claims_are_rare_and_the_cue_is_found() -> None:
    nothing, random, compute, control, cue, _ = WORLDS
    assert simulate(nothing, 3, 500).claimed == 0
    # The worst case: all but one condition hold always, so that what is claimed falsely is that one's 2.5 %.
    assert simulate(compute, 3, 2000).claimed < 0.035
    assert simulate(random, 3, 300).claimed < 0.01
    assert simulate(control, 3, 300).claimed == 0
    assert simulate(cue, 3, 300).claimed > 0.95


@pytest.mark.parametrize("bound", [0.97, 1.03])
def test_a_ratio_at_the_bound_is_found_equivalent_in_one_case_of_twenty(bound: float) -> None:
    assert 0.04 < simulate_ratio(bound, 0.01, 3, 4000) < 0.06
