"""Intervals say of what they are, and are what their formula says."""

import numpy as np
import pytest
from scipy import stats

from fovcache.probes.statistics.intervals import ONE_HEAD, corrected_resampled_interval, items_interval, t_interval

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


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.03, 0.3])
@pytest.mark.parametrize(
    "make", [t_interval, lambda values, **named: corrected_resampled_interval(values, 150, 50, **named)]
)
def test_p_is_below_five_percent_just_where_none_is_out_of_bounds(make, shift) -> None:
    found = make([each - 0.724 + shift for each in VALUES], difference=True)
    assert (found.p < 0.05) == (not found.bounds[0] <= 0 <= found.bounds[1])
    if make is t_interval:
        assert found.p == pytest.approx(stats.ttest_1samp(np.array(VALUES) - 0.724 + shift, 0).pvalue)
    middle = found.mean - found.half_width()  # where the bound would be none, p is .05
    assert stats.t.sf(found.half_width() / found.error, found.freedom) * 2 == pytest.approx(0.05)
    assert middle == pytest.approx(found.bounds[0])


def test_p_over_items_agrees_with_its_bounds() -> None:
    chance = np.random.default_rng(0)
    for share in np.linspace(0, 0.2, 9):
        off = chance.choice([-1, 0, 1], (3, 150), p=[0.1, 0.9 - 0.1 - share, 0.1 + share])
        found = items_interval(off, difference=True)
        assert (found.p < 0.05) == (not found.bounds[0] <= 0 <= found.bounds[1])


def test_differences_that_are_equal_say_nothing_but_that_there_may_be_none() -> None:
    for values in ((0.0,) * 5, (0.73 - 0.63, 0.83 - 0.73, 0.1)):  # the latter are equal but for rounding
        found = corrected_resampled_interval(values, 150, 50, difference=True)
        assert found.bounds is None
        assert found.p == (1.0 if values[0] == 0 else None)
    none = items_interval(np.zeros((2, 50), int), labels=np.arange(50) % 2, difference=True)
    assert (none.bounds, none.p) == (None, 1.0)
    assert "all 50 values are equal" in none.reason
    assert corrected_resampled_interval((0.1,), 150, 50, difference=True).p is None


def test_heads_that_differ_in_whole_classes_are_compared_over_all_items() -> None:
    labels = np.arange(100) % 4
    found = items_interval((labels == 0)[None].astype(int), labels=labels, difference=True)
    assert found.bounds == items_interval((labels == 0)[None].astype(int), difference=True).bounds
    assert "within classes" not in found.method
    assert found.p < 1e-5


def test_an_interval_names_the_heads_that_it_is_of() -> None:
    right = np.random.default_rng(0).random((3, 60)) < 0.7
    assert (
        "that heads of other first weights have on average"
        in items_interval(right, heads="heads of other first weights").estimand
    )
    assert "that the one head that was fitted has on new" in items_interval(right, heads=ONE_HEAD).estimand


def test_what_seeds_add_is_the_same_however_many_items_there_are() -> None:
    chance = np.random.default_rng(0)
    of_seeds = 0.1 * chance.standard_normal((20, 1))
    for num_items in (400, 6400):
        x = of_seeds + chance.standard_normal((1, num_items)) + chance.standard_normal((20, num_items))
        found = items_interval(x, difference=True)
        assert found.seeds_error == pytest.approx(of_seeds.std(ddof=1) / np.sqrt(20), rel=0.3)
        assert found.error > found.seeds_error
