"""Drops of made LoRAs come out as they were made: their signs, their intervals, and leaks that are there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fovcache.bench.lora_truth import (
    BY_ANSWERS,
    BY_ITEMS,
    BY_SEEDS,
    INTERVALS,
    SCENARIOS,
    SUBSETS,
    DropCoverage,
    SuiteSize,
    lora_draw,
    main,
    run_suite,
    simulate,
)
from fovcache.bench.made_loras.gauge import ORTHOGONAL
from fovcache.bench.made_loras.population import TEXT_DOWN, LoraPopulation
from fovcache.probes.splits import RESPLIT, SplitRule
from fovcache.probes.statistics.coverage import split_of, trial_of

SMALL = SuiteSize(num_samples=200, num_seeds=4, num_fresh=600)
OF = {scenario.name: scenario for scenario in SCENARIOS}


def simulated(name: str, num_suites: int) -> dict[tuple[str, str], DropCoverage]:
    return {(row.subset, row.interval): row for row in simulate(OF[name], num_suites, size=SMALL)}


def test_text_told_by_one_matrix_is_lost_without_it() -> None:
    found = simulated("attn2.to_v.down", 16)
    for subset in SUBSETS:
        for interval in INTERVALS:
            row = found[subset, interval]
            assert row.loses
            assert row.truth > 0.15
            assert (row.right_sign, row.wrong_side) == (1.0, 0.0)
            assert row.coverage >= 0.7  # .95 ± .05: fewer by accident once in 1,000
            assert abs(row.mean - row.truth) < 0.04
        by_answers, by_seeds = found[subset, BY_ANSWERS], found[subset, BY_SEEDS]
        assert by_answers.median_width < by_seeds.median_width
        assert 0.05 < by_answers.median_width < 0.25


@pytest.mark.parametrize(("name", "loses"), [("attn1", ()), ("attn2", ("attn1",)), ("both", ("attn1",))])
def test_a_drop_is_there_where_matrices_with_signal_are_left_out(name: str, loses: tuple[str, ...]) -> None:
    found = simulated(name, 5)
    for (subset, _), row in found.items():
        assert row.loses == (subset in loses)
        if row.loses:
            assert row.truth > 0.05
            assert row.right_sign == 1.0
        else:
            assert row.truth < 0.01  # fewer matrices that say nothing: nothing lost, something gained
            assert row.mean < 0.02
        assert row.wrong_side < 0.5


def test_a_suite_is_the_same_whichever_were_run_before() -> None:
    run_suite(OF["both, groups of 3"], SMALL, 3)
    second = run_suite(OF["both, groups of 3"], SMALL, 1)
    assert second == run_suite(OF["both, groups of 3"], SMALL, 1)
    assert second[("visual", BY_ITEMS)] != run_suite(OF["both, groups of 3"], SMALL, 2)[("visual", BY_ITEMS)]


def test_the_subsets_are_what_they_are_called() -> None:
    names = LoraPopulation().layout.names
    assert sum(map(SUBSETS["visual"], names)) == 112
    assert all(name.endswith(TEXT_DOWN) for name in names if not SUBSETS["visual"](name))
    assert sum(map(SUBSETS["attn1"], names)) == 64


def test_a_group_on_two_sides_leaks_what_duplicates_say_and_one_that_is_kept_whole_does_not() -> None:
    population = LoraPopulation(
        blocks=SCENARIOS[0].population.blocks,
        narrowing=16,
        gauge=ORTHOGONAL,
        group_size=4,
        duplicated=True,
        shuffled_labels=True,
    )
    accuracies = {}
    for is_kept in (True, False):
        rule = SplitRule(kind=RESPLIT, test=0.2, validation=0.1, group=is_kept)
        draws = [lora_draw(population, 400, start) for start in (0, 400)]
        trials = [trial_of(each.x, each.y, split_of(each, rule, seed)) for each in draws for seed in range(3)]
        accuracies[is_kept] = float(np.mean([trial.test_accuracy for trial in trials]))
    assert accuracies[True] < 0.16  # chance is .1
    assert accuracies[False] > 0.4
    honest = replace(population, duplicated=False)
    data = lora_draw(honest, 400, 0)
    loose = SplitRule(kind=RESPLIT, test=0.2, validation=0.1, group=False)
    assert np.mean([trial_of(data.x, data.y, split_of(data, loose, seed)).test_accuracy for seed in range(3)]) < 0.17


def test_the_command_prints_a_row_for_each_drop(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--suites", "2", "--only", "attn2.to_v.down", "--samples", "200", "--fresh", "500"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + len(SUBSETS) * len(INTERVALS)
    assert all(line.startswith("| attn2.to_v.down |") for line in lines[2:])
