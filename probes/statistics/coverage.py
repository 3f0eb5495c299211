"""How often the intervals hold what they say: the protocol itself on made populations whose truth is known.

`python -m fovcache.probes.statistics.coverage` prints the numbers of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluate import Outcome, run_trial
from ..heads.head import RIDGE, make_head
from ..one_thread import one_thread
from ..splits import GIVEN, RESPLIT, TEST, TRAIN, Partition, SplitRule, partition
from .intervals import corrected_resampled_interval, items_interval, t_interval

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
NUM_REPEATS = 2000
NUM_SEEDS = (5, 10)
HEADER = """
| population | interval | seeds | coverage | ± | median width |
|---|---|---|---|---|---|
"""
_NUM_FRESH = 8000
"""Test samples that a truth is computed from."""
_NUM_BOOTSTRAP = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Gaussian classes of one width; with groups, what they share is added."""

    name: str
    """What the table calls it."""
    class_counts: tuple[int, ...]
    """Samples of each class in a data set; a given test set has half as many."""
    num_dims: int
    """Columns."""
    separation: float
    """Root mean square distance of a class's mean from the origin, in standard deviations within a class."""
    group_size: int = 1
    """Samples of a group; 1 for none."""
    group_sd: float = 0.0
    """Standard deviation, in each dimension, of what a group shares."""

    def draw(self, chance: np.random.Generator, share: float = 1.0) -> Draw:
        """A data set of `share` as many samples."""
        means_KD = np.random.default_rng(5).standard_normal((len(self.class_counts), self.num_dims))
        means_KD *= self.separation / np.sqrt(self.num_dims)
        num_groups = [max(1, round(count * share / self.group_size)) for count in self.class_counts]
        label_G = np.repeat(np.arange(len(num_groups)), num_groups)
        shared_GD = self.group_sd * chance.standard_normal((len(label_G), self.num_dims))
        group_N = np.repeat(np.arange(len(label_G)), self.group_size)
        y_N = label_G[group_N]
        x_ND = (means_KD[label_G] + shared_GD)[group_N] + chance.standard_normal((len(y_N), self.num_dims))
        keys = chance.integers(0, 256, (len(y_N), 32), dtype=np.uint8)
        names = [name.tobytes().hex() for name in keys[:: self.group_size, :8]]
        groups = [names[group] for group in group_N] if self.group_size > 1 else None
        return Draw(x=x_ND, y=y_N, keys=keys, groups=groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Samples of a population."""

    x: np.ndarray
    """float64 [n, dims]."""
    y: np.ndarray
    """int64 [n]."""
    keys: np.ndarray
    """uint8 [n, 32]."""
    groups: list[str] | None
    """Of each sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What one kind of interval came to over all repeats."""

    population: str
    """Its name."""
    method: str
    """The kind of interval."""
    num_seeds: int
    """A repeat."""
    num_repeats: int
    """Data sets."""
    coverage: float
    """Share of intervals that held the truth."""
    median_width: float
    """Of the intervals."""

    @property
    def error(self) -> float:
        """Standard error of `coverage`, from the number of repeats."""
        return float(np.sqrt(self.coverage * (1 - self.coverage) / self.num_repeats))


RESPLIT_POPULATIONS = (
    Population(name="plain", class_counts=(60,) * 4, num_dims=8, separation=2.5),
    Population(name="easy", class_counts=(60,) * 4, num_dims=8, separation=4.5),
    Population(name="wide", class_counts=(60,) * 4, num_dims=100, separation=3.0),
    Population(name="uneven", class_counts=(120, 60, 40, 20), num_dims=8, separation=2.5),
    Population(name="groups of 5", class_counts=(100,) * 4, num_dims=8, separation=2.5, group_size=5, group_sd=0.7),
)
GIVEN_POPULATIONS = (RESPLIT_POPULATIONS[0], RESPLIT_POPULATIONS[1], RESPLIT_POPULATIONS[2], RESPLIT_POPULATIONS[4])


@one_thread()
def simulate_resplit(population: Population, num_repeats: int, *, seed: int = 0) -> list[Coverage]:
    """Coverage of the accuracy that a new data set's head can be expected to have."""
    chance = np.random.default_rng(seed)
    rule = SplitRule(kind=RESPLIT, group=population.group_size > 1)
    share = _NUM_FRESH / sum(population.class_counts)
    values_RS, truths, sizes = [], [], (0, 0)
    for _ in range(num_repeats):
        data = population.draw(chance)
        sides = [split_of(data, rule, each) for each in range(max(NUM_SEEDS))]
        values_RS.append([trial_of(data.x, data.y, side).test_accuracy for side in sides])
        truths.append(truth_of(population.draw(chance), rule, [0], population.draw(chance, share)))
        sizes = (len(data.y) - len(sides[0].test), len(sides[0].test))
    found: list[Coverage] = []
    truth = [float(np.mean(truths))] * num_repeats
    for num_seeds in NUM_SEEDS:
        rows = [values[:num_seeds] for values in values_RS]
        kinds: dict[str, Callable[[list[float]], tuple[float, float]]] = {
            "corrected resampled t": lambda row: corrected_resampled_interval(row, *sizes).bounds or _point(row),
            "plain t": lambda row: t_interval(row).bounds or _point(row),
            "percentile bootstrap": lambda row: _bootstrap(row, chance),
        }
        for name, make in kinds.items():
            found.append(coverage_of(population, name, num_seeds, [make(row) for row in rows], truth))
    return found


@one_thread()
def simulate_given(population: Population, num_repeats: int, *, seed: int = 0) -> list[Coverage]:
    """Coverage, for a given test set and a validation drawn from train, of what fresh test items would give."""
    chance = np.random.default_rng(seed)
    rule = SplitRule(kind=GIVEN, group=population.group_size > 1)
    share = _NUM_FRESH / sum(population.class_counts)
    drawn_RSM, truths = [], []
    for _ in range(num_repeats):
        train, test = population.draw(chance), population.draw(chance, 0.5)
        data = joined(train, test)
        splits = [TRAIN] * len(train.y) + [TEST] * len(test.y)
        seeds = range(max(NUM_SEEDS))
        drawn_RSM.append([trial_of(data.x, data.y, split_of(data, rule, each, splits)).correct for each in seeds])
        truths.append(truth_of(data, rule, range(100, 110), population.draw(chance, share), splits))
    found: list[Coverage] = []
    for num_seeds in NUM_SEEDS:
        correct_RSM = np.array(drawn_RSM)[:, :num_seeds]
        accuracies = correct_RSM.mean(2).tolist()
        # groups and labels of the last repeat: only which items belong together matters, and is the same in all
        items = [items_interval(each, test.groups, test.y).bounds or _point(each.mean(1)) for each in correct_RSM]
        plain = [t_interval(row).bounds or _point(row) for row in accuracies]
        found.append(coverage_of(population, "test items × seeds", num_seeds, items, truths))
        everywhere = [float(np.mean(truths))] * num_repeats
        found.append(coverage_of(population, "the same, for a new train set", num_seeds, items, everywhere))
        found.append(coverage_of(population, "plain t over seeds", num_seeds, plain, truths))
    return found


def table_row(row: Coverage) -> str:
    """A row of the table that HEADER begins."""
    return (
        f"| {row.population} | {row.method} | {row.num_seeds} | {row.coverage:.3f} | {row.error:.3f} "
        f"| {row.median_width:.3f} |\n"
    )


def split_of(data: Draw, rule: SplitRule, seed: int, splits: Sequence[str] | None = None) -> Partition:
    """As the protocol divides a data set, by content and group."""
    return partition(data.keys, data.y, data.groups, splits, rule, seed)


def trial_of(x: np.ndarray, y: np.ndarray, side: Partition) -> Outcome:
    """A trial of the protocol: ridge, its strength chosen on validation."""
    return run_trial(x, y, side, make_head(RIDGE, {"strengths": STRENGTHS}), int(y.max()) + 1)


def truth_of(
    data: Draw,
    rule: SplitRule,
    seeds: Sequence[int],
    fresh: Draw,
    splits: Sequence[str] | None = None,
) -> float:
    """The mean accuracy on fresh samples of heads that are fitted on this data."""
    x, y = np.concatenate([data.x, fresh.x]), np.concatenate([data.y, fresh.y])
    test = np.arange(len(data.y), len(y))
    sides = (split_of(data, rule, seed, splits) for seed in seeds)
    trials = (trial_of(x, y, Partition(train=side.train, validation=side.validation, test=test)) for side in sides)
    return float(np.mean([trial.test_accuracy for trial in trials]))


def joined(one: Draw, other: Draw) -> Draw:
    """The samples of both, in this order."""
    x, y, keys = (np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("x", "y", "keys"))
    return Draw(x=x, y=y, keys=keys, groups=one.groups and other.groups and one.groups + other.groups)


def _bootstrap(row: Sequence[float], chance: np.random.Generator) -> tuple[float, float]:
    means = np.array(row)[chance.integers(0, len(row), (_NUM_BOOTSTRAP, len(row)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _point(values: Sequence[float]) -> tuple[float, float]:
    """Where there is no interval, it holds one number."""
    return float(np.mean(values)), float(np.mean(values))


def coverage_of(
    population: Population,
    method: str,
    num_seeds: int,
    bounds: Sequence[tuple[float, float]],
    truths: Sequence[float],
) -> Coverage:
    """How often bounds hold the truth, for each data set its own."""
    holds = [low <= truth <= high for (low, high), truth in zip(bounds, truths, strict=True)]
    return Coverage(
        population=population.name,
        method=method,
        num_seeds=num_seeds,
        num_repeats=len(bounds),
        coverage=float(np.mean(holds)),
        median_width=float(np.median([high - low for low, high in bounds])),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate all populations and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=NUM_REPEATS, help="data sets of each population")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for simulate, populations in ((simulate_resplit, RESPLIT_POPULATIONS), (simulate_given, GIVEN_POPULATIONS)):
        sys.stdout.write(HEADER)
        for population in populations:
            sys.stdout.writelines(map(table_row, simulate(population, options.repeats, seed=options.seed)))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
