"""The interquartile mean is rliable's, and its interval depends on its seed."""

import numpy as np
import pytest
from scipy import stats

from fovcache.probes.statistics.iqm import iqm, iqm_interval


def test_it_is_what_rliable_says() -> None:
    assert iqm(np.array([[1, 2], [2, 2], [1, 1], [2, 1]])) == 1.5
    assert iqm(np.array([[1, 1], [2, 2], [3, 3]])) == 2


def test_a_few_cells_do_not_move_it() -> None:
    values = np.random.default_rng(0).random((5, 20))
    spoilt = np.where(values > np.quantile(values, 0.8), 100.0, values)
    assert iqm(spoilt) == iqm(values)


def test_its_interval_draws_seeds_within_each_cell() -> None:
    apart = np.arange(20) + np.zeros((5, 1))  # cells differ, seeds do not
    assert iqm_interval(apart, num_resamples=500) == (iqm(apart), iqm(apart))
    values = np.random.default_rng(0).standard_normal((10, 40))
    low, high = iqm_interval(values, num_resamples=2000)
    theirs = stats.bootstrap((values[:, 0],), np.mean, random_state=0).standard_error
    assert low < iqm(values) < high
    assert high - low < 4 * theirs  # many cells are known better than one
    assert (low, high) == iqm_interval(values, num_resamples=2000)
    assert (low, high) == pytest.approx(iqm_interval(values, num_resamples=2000, seed=1), abs=0.02)
