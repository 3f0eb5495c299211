"""Tests of differences and Holm's correction, against worked examples and scipy."""

import numpy as np
import pytest
from scipy import stats

from fovcache.probes.statistics.intervals import items_interval
from fovcache.probes.statistics.significance import effect_size, holm, mcnemar, paired_bootstrap, smallest_p


def test_holm_is_rs_p_adjust() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_errs_in_a_family_as_seldom_as_it_says() -> None:
    chance = np.random.default_rng(0)
    scores = chance.standard_normal((4000, 1)) * 0.7 + chance.standard_normal(
        (4000, 9)
    )  # they have something in common
    p_values = 2 * stats.norm.sf(np.abs(scores) / np.sqrt(1.49))
    raw = (p_values < 0.05).any(1).mean()
    corrected = np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert raw > 0.2
    assert corrected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_the_smallest_p_of_few_pairs() -> None:
    assert [smallest_p(num) for num in (1, 3, 5, 6, 10)] == [1.0, 0.25, 0.0625, 0.03125, 2 / 1024]
    assert smallest_p(6) == stats.wilcoxon([1, 2, 3, 4, 5, 6.0]).pvalue
    assert smallest_p(5) == mcnemar(np.ones(5, int))[0]


def test_mcnemar_is_the_binomial_test_of_the_items_that_differ() -> None:
    off = np.array([1] * 9 + [-1] + [0] * 90)
    assert mcnemar(off) == (pytest.approx(22 / 1024), 10)
    assert mcnemar(-off)[0] == mcnemar(off)[0]
    assert mcnemar(np.zeros(20, int)) == (1.0, 0)


def test_mcnemar_finds_no_more_than_it_should() -> None:
    chance = np.random.default_rng(0)
    found = [mcnemar(chance.choice([-1, 0, 1], 300, p=[0.1, 0.8, 0.1]))[0] < 0.05 for _ in range(500)]
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_the_effect_size_is_t_without_the_number_of_pairs() -> None:
    off = np.array([0.02, 0.05, -0.01, 0.03, 0.04])
    assert effect_size(off) == pytest.approx(stats.ttest_1samp(off, 0).statistic / np.sqrt(5))
    assert effect_size(np.full(5, 0.1)) is None
    assert effect_size(np.array([0.1])) is None


def test_the_bootstrap_agrees_with_the_analysis_of_variance_where_there_are_many_items() -> None:
    off = np.random.default_rng(1).choice([-1, 0, 1], (1, 2000), p=[0.1, 0.77, 0.13])
    bounds, p = paired_bootstrap(off)
    found = items_interval(off, difference=True)
    assert bounds == pytest.approx(found.bounds, abs=0.002)
    assert p == pytest.approx(found.p, abs=0.01)
    assert paired_bootstrap(off) == (bounds, p)
    assert paired_bootstrap(off, seed=1) != (bounds, p)


def test_the_bootstrap_draws_groups_whole() -> None:
    off = np.repeat(np.random.default_rng(0).choice([-1, 0, 1], (1, 60), p=[0.2, 0.5, 0.3]), 10, 1)
    widths = [
        high - low
        for low, high in (
            paired_bootstrap(off)[0],
            paired_bootstrap(off, [f"g{number // 10}" for number in range(600)])[0],
        )
    ]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.1)


def test_the_bootstraps_p_is_one_where_nothing_differs_and_never_zero() -> None:
    assert paired_bootstrap(np.zeros((3, 50), int), num_resamples=999) == ((0.0, 0.0), 1.0)
    assert paired_bootstrap(np.ones((3, 50), int), num_resamples=999)[1] == 2 / 1000
