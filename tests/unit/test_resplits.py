"""Intervals of differences over resplits, from single answers."""

from __future__ import annotations

import numpy as np
import pytest

from fovcache.probes.statistics.intervals import items_interval
from fovcache.probes.statistics.resplits import resplits_interval

NUM, NUM_TEST = 200, 40


def made(
    chance: np.random.Generator, *, num_seeds: int, of_samples: float, of_seeds: float = 0.0, group_size: int = 1
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Differences of mean .1 in two classes, of which samples and seeds have a share, and their places and labels."""
    shared = np.repeat(chance.standard_normal(NUM // group_size), group_size) * of_samples
    positions = [np.sort(chance.permutation(NUM)[:NUM_TEST]) for _ in range(num_seeds)]
    off = [
        0.1 + shared[each] + of_seeds * chance.standard_normal() + chance.standard_normal(NUM_TEST)
        for each in positions
    ]
    return off, positions, [each % 2 for each in positions]


@pytest.mark.parametrize(("of_samples", "of_seeds"), [(0.0, 0.0), (1.0, 0.0), (2.0, 0.3), (0.0, 1.0)])
def test_where_training_adds_nothing_it_is_wider_than_need_be_by_the_factor(of_samples: float, of_seeds: float) -> None:
    chance = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        interval = resplits_interval(
            *made(chance, num_seeds=10, of_samples=of_samples, of_seeds=of_seeds), NUM - NUM_TEST
        )
        means.append(interval.mean)
        errors.append(interval.error or 0.0)
    factor = float(np.mean(np.square(errors)) / np.var(means))
    assert 0.85 * NUM / (NUM - NUM_TEST) < factor < 1.3 * NUM / (NUM - NUM_TEST)
    assert np.mean(means) == pytest.approx(0.1, abs=0.06)


def test_with_one_test_set_and_no_seeds_it_is_that_of_items() -> None:
    off = np.random.default_rng(1).integers(-1, 2, NUM_TEST)
    positions, labels = np.arange(NUM_TEST), np.arange(NUM_TEST) % 4
    found = resplits_interval([off] * 3, [positions] * 3, [labels] * 3, NUM - NUM_TEST)
    expected = items_interval(np.stack([off] * 3), None, labels, difference=True)
    assert found.mean == pytest.approx(expected.mean)
    assert found.error == pytest.approx((expected.error or 0) * (NUM / (NUM - NUM_TEST)) ** 0.5)
    assert found.bounds is not None
    assert np.mean(found.bounds) == pytest.approx(found.mean)
    assert found.p is not None
    assert (found.p < 0.05) == (not found.bounds[0] <= 0 <= found.bounds[1])


def test_groups_are_drawn_as_one() -> None:
    chance = np.random.default_rng(2)
    off, positions, labels = made(chance, num_seeds=8, of_samples=2.0, group_size=10)
    groups = [f"g{place // 10}" for place in range(NUM)]
    alone = resplits_interval(off, positions, labels, NUM - NUM_TEST)
    grouped = resplits_interval(off, positions, labels, NUM - NUM_TEST, groups)
    assert (alone.error or 0) * 1.5 < (grouped.error or 0)
    assert (alone.freedom, grouped.freedom) == (len(set(np.concatenate(positions))) - 2, 18)
    assert "groups that were in test" in grouped.method
    assert resplits_interval(off, positions, labels, NUM - NUM_TEST, [None] * NUM).error == alone.error


def test_where_nothing_can_be_said_the_reason_is() -> None:
    off, positions, labels = made(np.random.default_rng(3), num_seeds=1, of_samples=1.0)
    assert "one seed" in (resplits_interval(off, positions, labels, 160).reason or "")
    same = [np.zeros(NUM_TEST, np.int64)] * 4
    found = resplits_interval(same, positions * 4, labels * 4, 160)
    assert (found.bounds, found.error, found.p) == (None, 0.0, 1.0)
    assert "differ alike" in (found.reason or "")
    by_class = [np.where(each == 0, 1, 0) for each in labels * 4]  # one head has all of one class, the other none
    only_classes = resplits_interval(by_class, positions * 4, labels * 4, 160)
    assert only_classes.bounds is not None
    assert only_classes.bounds[0] < 0.5 < only_classes.bounds[1]


def test_bounds_stay_within_what_differences_can_be() -> None:
    chance = np.random.default_rng(4)
    positions = [np.arange(6), np.arange(2, 8)]
    off = [chance.integers(0, 2, 6) for _ in positions]
    off[0][:5] = 1
    found = resplits_interval(off, positions, [each % 2 for each in positions], 2)
    assert found.bounds is not None
    assert -1 <= found.bounds[0] < found.mean < found.bounds[1] <= 1
