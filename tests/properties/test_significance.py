"""Whatever the numbers: p lies in [0, 1], agrees with its interval, and Holm's correction only ever raises it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.probes.statistics.intervals import corrected_resampled_interval, items_interval, t_interval
from fovcache.probes.statistics.significance import holm, mcnemar, paired_bootstrap

P = st.floats(0, 1)
OFF = st.lists(st.integers(-100, 100), min_size=2, max_size=12).map(lambda counts: [each / 100 for each in counts])


@given(st.lists(P, max_size=20))
def test_holm_raises_keeps_the_order_and_stays_below_bonferroni(p_values) -> None:
    found = holm(p_values)
    assert len(found) == len(p_values)
    for raw, corrected in zip(p_values, found, strict=True):
        assert raw <= corrected <= min(1, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


@given(st.lists(P, min_size=1, max_size=10), st.randoms())
def test_holm_does_not_depend_on_order(p_values, chance) -> None:
    order = list(range(len(p_values)))
    chance.shuffle(order)
    found, shuffled = holm(p_values), holm([p_values[place] for place in order])
    assert [found[place] for place in order] == pytest.approx(shuffled)


@given(OFF, st.sampled_from([t_interval, lambda off, **named: corrected_resampled_interval(off, 90, 30, **named)]))
def test_p_of_seeds_agrees_with_the_bounds(off, make) -> None:
    found = make(off, difference=True)
    if found.p is None or found.bounds is None:
        assert np.ptp(off) < 1e-9
        return
    assert 0 <= found.p <= 1
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (not found.bounds[0] <= 0 <= found.bounds[1])
    assert make([-each for each in off], difference=True).p == pytest.approx(found.p)


@given(st.integers(1, 4), st.integers(2, 40), st.integers(1, 5), st.integers(0, 1000), st.booleans(), st.randoms())
def test_p_of_items_agrees_with_the_bounds_in_any_order(num_seeds, num_items, per_group, seed, grouped, chance) -> None:
    off = np.random.default_rng(seed).choice([-1, 0, 1], (num_seeds, num_items))
    groups = [str(item // per_group) for item in range(num_items)] if grouped else None
    found = items_interval(off, groups, difference=True)
    if found.bounds is not None:
        assert 0 <= found.p <= 1
        if abs(found.p - 0.05) > 1e-9:
            assert (found.p < 0.05) == (not found.bounds[0] <= 0 <= found.bounds[1])
    order = list(range(num_items))
    chance.shuffle(order)
    again = items_interval(off[:, order], groups and [groups[each] for each in order], difference=True)
    assert again.p == pytest.approx(found.p)
    (low, high), p = paired_bootstrap(off, groups, num_resamples=50, seed=seed)
    assert -1 <= low <= high <= 1
    assert 0 < p <= 1
    assert 0 < mcnemar(off[0])[0] <= 1


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemars_p_falls_as_one_head_wins_more(lost, won) -> None:
    def p(num_won: int) -> float:
        return mcnemar(np.array([-1] * lost + [1] * num_won, int))[0]

    if won >= lost:
        assert p(won + 1) <= p(won) + 1e-12
