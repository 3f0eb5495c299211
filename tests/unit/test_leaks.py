"""Shuffled labels that score above chance raise an alarm, and those at chance do not."""

import numpy as np
import pytest
from scipy import stats

from fovcache.probes.result import NO_CONTROL, SHUFFLED_LABELS, Trial
from fovcache.probes.statistics.leaks import ALARM, shuffled_cells


def trial(experiment: str, seed: int, accuracy: float, control: str = SHUFFLED_LABELS, chance: float = 0.25) -> Trial:
    return Trial(
        key=f"{experiment}{seed}", representation="stats", experiment=experiment, control=control, seed=seed,
        layers=("a",), head="ridge", setting={}, num_train=180, num_validation=60, num_test=80, num_features=4,
        num_effective=4, train_accuracy=1.0, validation_accuracy=0.5, test_accuracy=accuracy, chance=chance,
        seconds=0.1,
    )  # fmt: skip


def test_it_is_the_one_sided_t_over_seeds() -> None:
    values = [0.3, 0.26, 0.33, 0.24, 0.29]
    (cell,) = shuffled_cells([trial("all", seed, value) for seed, value in enumerate(values)], 4)
    assert cell.p == pytest.approx(stats.ttest_1samp(values, 0.25, alternative="greater").pvalue)
    assert (cell.num_seeds, cell.p_holm) == (5, cell.p)
    assert cell.excess == pytest.approx(0.034)


def test_chance_is_at_least_a_guess_among_the_classes() -> None:
    """Train's most frequent class is a rare one in test, by a sample, where classes are even."""
    values = [0.25, 0.24, 0.26]
    (cell,) = shuffled_cells([trial("all", seed, value, chance=0.24) for seed, value in enumerate(values)], 4)
    assert cell.p == pytest.approx(0.5)


def test_a_leak_is_found_among_cells_without_one_also_where_all_seeds_are_equal() -> None:
    chance = np.random.default_rng(0)
    trials = [trial(f"layer {n}", seed, chance.binomial(80, 0.25) / 80) for n in range(30) for seed in range(5)]
    trials += [trial("leak", seed, 1.0) for seed in range(5)]
    trials += [trial("all", seed, 1.0, NO_CONTROL) for seed in range(5)]
    found = shuffled_cells(trials, 4)
    assert len(found) == 31
    assert [cell.experiment for cell in found if cell.p_holm < ALARM] == ["leak"]


def test_one_seed_says_nothing() -> None:
    assert shuffled_cells([trial("all", 0, 1.0)], 4) == ()
