"""Intervals say of what they are, and are what their formula says."""

import numpy as np
import pytest
from scipy import stats

from fovcache.probes.intervals import (
    corrected_resampled_interval,
    items_interval,
    smallest_p,
    t_interval,
)

VALUES = (0.71, 0.74, 0.69, 0.73, 0.75)


def test_t_is_scipys() -> None:
    found = t_interval(VALUES)
    theirs = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(0.724)
    assert found.bounds == pytest.approx((theirs.low, theirs.high))


def test_corrected_resampled_t_has_the_variance_of_nadeau_and_bengio() -> None:
    found = corrected_resampled_interval(VALUES, 150, 50)
    half = stats.t.ppf(0.975, 4) * np.std(VALUES, ddof=1) * np.sqrt(1 / 5 + 50 / 150)
    assert found.bounds == pytest.approx((0.724 - half, 0.724 + half))
    assert "Nadeau & Bengio 2003" in found.method
    assert "new train set" in found.estimand
    low, high = t_interval(VALUES).bounds
    assert found.bounds[0] < low < high < found.bounds[1]


def test_bounds_of_an_accuracy_stay_within_0_and_1_and_those_of_a_difference_may_be_negative() -> None:
    assert corrected_resampled_interval((0.99, 1.0, 0.9), 150, 50).bounds[1] == 1.0
    assert corrected_resampled_interval((0.0, 0.01, 0.1), 150, 50).bounds[0] == 0.0
    low, high = corrected_resampled_interval((-0.02, 0.03, 0.01), 150, 50, difference=True).bounds
    assert low < 0 < high


@pytest.mark.parametrize("make", [t_interval, lambda values: corrected_resampled_interval(values, 150, 50)])
def test_one_seed_has_no_interval_and_says_why(make) -> None:
    found = make((0.7,))
    assert (found.mean, found.bounds) == (0.7, None)
    assert "one seed" in found.reason


def test_equal_accuracies_are_no_certainty() -> None:
    found = corrected_resampled_interval((1.0,) * 5, 150, 50)
    theirs = stats.binomtest(50, 50).proportion_ci(method="wilson")
    assert found.bounds == pytest.approx((theirs.low, 1.0))
    assert "all 5 values are equal" in found.method
    found = corrected_resampled_interval((0.0,) * 5, 150, 50, difference=True)
    assert found.bounds is None
    assert "equal" in found.reason


def test_one_head_on_given_items_is_about_wilson() -> None:
    right = np.arange(1000)[None] < 800
    found = items_interval(right)
    theirs = stats.binomtest(800, 1000).proportion_ci(method="wilson")
    assert found.bounds == pytest.approx((theirs.low, theirs.high), abs=1e-4)
    assert "the one head" in found.estimand


def test_seeds_that_change_nothing_add_nothing() -> None:
    right = np.random.default_rng(0).random((1, 300)) < 0.8
    assert items_interval(np.repeat(right, 7, 0)).bounds == items_interval(right).bounds


def test_all_right_on_a_few_items_is_no_certainty() -> None:
    low, high = items_interval(np.ones((3, 20), bool)).bounds
    assert high == 1.0
    assert low == pytest.approx(0.82, abs=0.02)  # Wilson with t
    low, high = items_interval(np.arange(40)[None] < 20, labels=np.arange(40) // 20).bounds  # one class never right
    assert low < 0.4 < 0.6 < high


def test_items_of_a_group_that_are_right_together_count_once() -> None:
    right = np.repeat(np.random.default_rng(0).random((1, 40)) < 0.7, 10, 1)
    groups = [f"g{number // 10}" for number in range(400)]
    narrow, wide = items_interval(right), items_interval(right, groups)
    widths = [each.bounds[1] - each.bounds[0] for each in (narrow, wide)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.15)
    assert "40 test groups" in wide.method
    assert items_interval(right, [None] * 400) == narrow


def test_one_group_has_no_interval() -> None:
    found = items_interval(np.array([[1, 0, 1]], bool), ["a", "a", "a"])
    assert found.bounds is None
    assert found.reason.startswith("test has too few groups (1)")


@pytest.mark.parametrize(
    ("of_seeds", "of_items", "of_rest"), [(0.05, 0.5, 0.3), (0.3, 0.1, 0.5), (0.0, 0.4, 0.2), (0.05, 0.05, 1.0)]
)
def test_the_interval_covers_when_both_seeds_and_items_are_drawn(of_seeds, of_items, of_rest) -> None:
    chance = np.random.default_rng(0)
    holds = []
    for _ in range(1000):
        x = 0.1 + of_seeds * chance.standard_normal((5, 1)) + of_items * chance.standard_normal((1, 40))
        low, high = items_interval(x + of_rest * chance.standard_normal((5, 40)), difference=True).bounds
        holds.append(low <= 0.1 <= high)
    assert 0.93 <= np.mean(holds) <= 0.975


def test_classes_that_are_easier_than_others_do_not_widen_the_interval() -> None:
    labels = np.repeat([0, 1], 200)
    right = np.random.default_rng(0).random((5, 400)) < np.where(labels, 0.98, 0.5)
    pooled, by_class = items_interval(right), items_interval(right, labels=labels)
    assert by_class.mean == pooled.mean
    assert by_class.bounds[1] - by_class.bounds[0] < 0.9 * (pooled.bounds[1] - pooled.bounds[0])
    assert "within classes" in by_class.method
    assert "in the shares" in by_class.estimand
    assert items_interval(right, labels=np.zeros(400, int)).bounds == pytest.approx(pooled.bounds)


@pytest.mark.parametrize("of_seeds", [0.0, 0.1])
def test_the_interval_covers_when_items_are_drawn_class_by_class(of_seeds) -> None:
    chance, labels, holds = np.random.default_rng(1), np.repeat([0, 1, 2], [10, 20, 10]), []
    means = np.array([0.9, -0.4, 0.3])
    truth = means[labels].mean()
    for _ in range(1000):
        x = means[labels] + of_seeds * chance.standard_normal((5, 1)) + 0.3 * chance.standard_normal((1, 40))
        low, high = items_interval(x + 0.3 * chance.standard_normal((5, 40)), labels=labels, difference=True).bounds
        holds.append(low <= truth <= high)
    assert 0.93 <= np.mean(holds) <= 0.975


def test_differences_of_two_heads_on_the_same_items_are_narrower_than_either() -> None:
    chance = np.random.default_rng(0)
    one = chance.random((5, 400)) < np.where(np.arange(400) < 300, 0.98, 0.05)
    other = one & (chance.random((5, 400)) < 0.95)
    found = items_interval(one.astype(int) - other, difference=True)
    assert found.mean == pytest.approx(one.mean() - other.mean())
    assert 0 < found.bounds[0] < found.bounds[1] < 0.1
    assert "difference" in found.estimand
    alone = items_interval(one).bounds
    assert found.bounds[1] - found.bounds[0] < (alone[1] - alone[0]) / 2


def test_the_smallest_p_of_few_seeds() -> None:
    assert [smallest_p(num) for num in (1, 3, 5, 6, 10)] == [1.0, 0.25, 0.0625, 0.03125, 2 / 1024]
    assert smallest_p(6) == stats.wilcoxon([1, 2, 3, 4, 5, 6.0]).pvalue
