"""Differences of stored trials: the test fits how test sets of the seeds belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, Difference, Trial
from fovcache.probes.running.result_folder import open_folder
from fovcache.probes.splits import GIVEN, INDEPENDENT, RESPLIT
from fovcache.probes.statistics.differences import corrected, differences
from fovcache.probes.statistics.intervals import corrected_resampled_interval, items_interval
from fovcache.probes.statistics.significance import mcnemar
from fovcache.probes.statistics.summary import Scored, estimates

NUM = 200
LABELS = np.arange(NUM) % 4
CELLS = {("all", NO_CONTROL): 0.8, ("few", NO_CONTROL): 0.7, ("few", RANDOM_LAYERS): 0.5}


def right(cell: tuple[str, str], seed: int) -> np.ndarray:
    """bool [NUM]: items differ in how hard they are, seeds a little."""
    hard = np.random.default_rng(0).random(NUM)
    return hard < CELLS[cell] + 0.1 * np.random.default_rng([seed, len(cell[0]), len(cell[1])]).standard_normal(NUM)


@pytest.fixture
def compare(tmp_path: Path):
    """`compare(sampling, num_seeds)`: the differences by (other, control), and what they were made of."""

    def compare(sampling: str, num_seeds: int = 5, groups: list[str] | None = None, same: bool = False):
        trials = []
        with open_folder(tmp_path) as folder:
            for cell in CELLS:
                for seed in range(num_seeds):
                    correct = right(cell, 0 if same else seed)
                    key = f"{cell[0]}-{cell[1]}-{seed}"
                    folder.keep_predictions(key, np.arange(NUM), LABELS, np.where(correct, LABELS, (LABELS + 1) % 4))
                    trials.append(trial(key, cell, seed, float(correct.mean())))
        scored = Scored(folder=tmp_path, groups=groups, sampling=sampling, heads="some heads", num_samples=800)
        found = differences(trials, ["all", "few"], scored)
        return {(each.other, each.other_control): each for each in found}, estimates(trials, scored)

    return compare


def trial(key: str, cell: tuple[str, str], seed: int, accuracy: float) -> Trial:
    return Trial(
        key=key, representation="stats", experiment=cell[0], control=cell[1], seed=seed, layers=("a",), head="ridge",
        setting={"strength": 1.0}, num_train=40, num_validation=80, num_test=NUM, num_features=4, num_effective=4,
        train_accuracy=1.0, validation_accuracy=0.5, test_accuracy=accuracy, chance=0.25, seconds=0.1,
    )  # fmt: skip


def off(num_seeds: int) -> np.ndarray:
    return np.array(
        [right(("few", NO_CONTROL), seed).mean() - right(("all", NO_CONTROL), seed).mean() for seed in range(num_seeds)]
    )


def test_independent_draws_are_compared_by_students_paired_t(compare) -> None:
    found = compare(INDEPENDENT)[0]["all", NO_CONTROL]
    one, other = ([right((name, NO_CONTROL), seed).mean() for seed in range(5)] for name in ("few", "all"))
    theirs = stats.ttest_rel(one, other)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.ci95 == pytest.approx(tuple(theirs.confidence_interval()))
    assert found.effect_size == pytest.approx(theirs.statistic / np.sqrt(5))
    assert found.smallest_p == 0.0625
    assert "paired t over 5 independent draws" in found.test
    assert "draws of 320 samples each" in found.to_resolve or "resolved" in found.to_resolve


def test_resplits_are_compared_by_the_corrected_t_whose_rest_is_all_that_is_not_in_test(compare) -> None:
    found = compare(RESPLIT)[0]["all", NO_CONTROL]
    theirs = corrected_resampled_interval(off(5), 600, 200, difference=True)  # few-shot: 40 of 520 are in train
    assert found.ci95 == theirs.bounds
    assert found.p == theirs.p
    assert "Nadeau & Bengio" in found.test
    assert "samples, not 800, in such splits" in found.to_resolve


def test_one_test_set_is_compared_over_its_items(compare) -> None:
    by_other, found = compare(GIVEN)
    each = by_other["all", NO_CONTROL]
    off_SM = np.stack(
        [right(("few", NO_CONTROL), seed).astype(int) - right(("all", NO_CONTROL), seed) for seed in range(5)]
    )
    theirs = items_interval(off_SM, None, LABELS, difference=True)
    assert (each.ci95, each.p) == (theirs.bounds, theirs.p)
    assert "200 test items and 5 seeds" in each.test
    assert each.smallest_p < 1e-50
    assert "some heads have on average" in found[0][1].estimand


def test_one_head_is_compared_by_mcnemar_also_where_seeds_change_nothing(compare) -> None:
    expected, num = mcnemar(right(("few", NO_CONTROL), 0).astype(int) - right(("all", NO_CONTROL), 0))
    for each in (compare(GIVEN, 1)[0]["all", NO_CONTROL], compare(GIVEN, 3, same=True)[0]["all", NO_CONTROL]):
        assert each.p == expected
        assert f"by the {num} of 200 test items that one has right and the other wrong" in each.test
        assert each.smallest_p == 2.0 ** (1 - num)


def test_groups_of_items_are_not_mcnemars(compare) -> None:
    each = compare(GIVEN, 1, [f"g{item // 5}" for item in range(NUM)])[0]["all", NO_CONTROL]
    assert "40 test groups of items and 1 seed, both" in each.test
    assert each.smallest_p == 2.0**-39


def test_all_differences_are_corrected_together(compare) -> None:
    found = compare(RESPLIT)[0]
    assert set(found) == {("few", RANDOM_LAYERS), ("all", NO_CONTROL)}
    least, most = sorted(found.values(), key=lambda each: each.p)
    assert least.p_holm == pytest.approx(min(1, 2 * least.p))
    assert most.p_holm == pytest.approx(max(most.p, least.p_holm))


def test_one_resplit_has_no_p_and_is_not_counted(compare) -> None:
    every = compare(RESPLIT, 1)[0].values()
    assert {(each.p, each.p_holm, each.effect_size, each.test, each.to_resolve) for each in every} == {
        (None, None, None, "", "")
    }
    assert {each.smallest_p for each in every} == {1.0}
    tested = compare(RESPLIT, 5)[0]["all", NO_CONTROL]
    both: tuple[Difference, ...] = corrected([*every, tested])
    assert [each.p_holm for each in both] == [None, None, tested.p]
