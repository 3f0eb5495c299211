"""The judgement of a check: its figures, how often it is wrong, and how often it sees a slowdown."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from fovcache.bench.regression.in_turns import turns
from fovcache.bench.regression.judge import ALPHA, MIN_PROCESSES, difference, interval_cut
from fovcache.bench.regression.noise import NOISES, made_times
from fovcache.bench.regression.simulate import simulate


@pytest.mark.parametrize(("num_base", "num_head"), [(7, 7), (10, 10), (10, 13), (20, 20), (40, 25)])
def test_the_interval_covers_at_least_95_percent(num_base: int, num_head: int) -> None:
    """By the exact distribution of U: the interval leaves out that many of the ordered ratios at either end."""
    ways = _ways(num_base, num_head)
    outside = 2 * sum(ways[: interval_cut(num_base, num_head) + 1]) / math.comb(num_base + num_head, num_base)
    assert 0.03 < outside <= 0.05


def test_fewer_than_seven_a_side_can_show_nothing() -> None:
    low, high = np.arange(1.0, 8), np.arange(101.0, 108)
    assert difference(low[:6], high[:6]).p > ALPHA
    assert difference(low, high).p < ALPHA


def test_many_are_judged_as_one_by_one() -> None:
    times = np.random.default_rng(0).lognormal(0, 0.1, (2, 3, 5, 10))
    together = difference(*times)
    for place in np.ndindex(3, 5):
        alone = difference(times[0][place], times[1][place])
        for name in ("p", "ratio", "low", "high", "delta"):
            assert getattr(alone, name) == pytest.approx(getattr(together, name)[place], rel=1e-12)


def test_swapped_sides_mirror() -> None:
    base, head = np.random.default_rng(1).lognormal(0, 0.1, (2, 12))
    one, other = difference(base, head), difference(head, base)
    assert one.p == pytest.approx(other.p)
    assert one.delta == pytest.approx(-other.delta)
    assert one.ratio * other.ratio == pytest.approx(1)
    assert one.low * other.high == pytest.approx(1)


def test_ties_are_no_difference() -> None:
    same = np.ones(10)
    found = difference(same, same)
    assert (found.p, found.ratio, found.delta) == (1, 1, 0)


def test_turns_weigh_drift_on_both_sides_alike() -> None:
    order = list(turns(MIN_PROCESSES))
    places = [[place for place, side in enumerate(order) if side == number] for number in (0, 1)]
    assert [len(each) for each in places] == [MIN_PROCESSES, MIN_PROCESSES]
    assert sum(places[0]) == sum(places[1])
    assert all(b - a <= 3 for each in places for a, b in pairwise(each))


@pytest.mark.parametrize(
    ("name", "expected"), [("quiet machine", 0.012), ("shared machine", 0.036), ("bad machine", 0.08)]
)
def test_made_noise_is_as_large_as_is_said(name: str, expected: float) -> None:
    times = made_times(NOISES[name], np.random.default_rng(0), suites=200, benchmarks=50, processes=40)
    assert times.shape == (200, 50, 40)
    middle = np.quantile(times, 0.84, axis=-1) - np.quantile(times, 0.16, axis=-1)
    assert np.median(middle) / 2 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("name", ["quiet machine", "shared machine"])
def test_a_check_alarms_rarely_and_sees_a_slowdown_of_15_percent(name: str) -> None:
    """`python -m fovcache.bench.regression.simulate` does it for 10,000 suites."""
    found = simulate(NOISES[name], suites=1000, benchmarks=20, slowdown=1.15, seed=3)
    assert found.false_alarms.value <= 0.01
    assert found.detections.value >= 0.95
    assert found.detections.trials == 1000


def test_a_bad_machine_blunts_a_check_and_raises_no_alarm() -> None:
    found = simulate(NOISES["bad machine"], suites=1000, benchmarks=20, slowdown=1.15, seed=3)
    assert found.false_alarms.value <= 0.01
    assert found.confirmations.value > 10 * found.false_alarms.value  # it is the second stage that keeps it so
    assert found.detections.value < 0.95


def _ways(num_base: int, num_head: int) -> list[int]:
    """In how many orders U has each value: the coefficients of the Gaussian binomial."""
    ways = [1] + [0] * (num_base * num_head)
    for step in range(1, num_base + 1):
        for value in range(len(ways) - 1, num_head + step - 1, -1):
            ways[value] -= ways[value - num_head - step]
        for value in range(step, len(ways)):
            ways[value] += ways[value - step]
    return ways
