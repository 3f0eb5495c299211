"""How often intervals of differences hold the truth, and how often tests find what is not there.

`python -m fovcache.probes.statistics.paired_coverage` prints the numbers of docs/statistics.md, by the code that
ablations run, on populations as those of `coverage`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..evaluate import shuffled_labels
from ..one_thread import one_thread
from ..splits import GIVEN, INDEPENDENT, RESPLIT, TEST, TRAIN, Partition, SplitRule, partition
from .coverage import GIVEN_POPULATIONS, RESPLIT_POPULATIONS, Draw, Population, joined, trial_of
from .intervals import Interval, corrected_resampled_interval, items_interval, t_interval
from .leaks import excess_p
from .significance import holm

NUM_REPEATS = 2000
NUM_SEEDS = (5, 10)
NUM_COMPARISONS = 9
HEADER = """
| population | split | of what | seeds | coverage | p < .05 | median width |
|---|---|---|---|---|---|---|
"""
FAMILY_HEADER = """
| population | of what | seeds | each p < .05 | any of 9 | any of 9, by Holm |
|---|---|---|---|---|---|
"""
ACCURACY, NO_DIFFERENCE, A_DIFFERENCE = "an accuracy", "a difference of none", "a difference"
_NUM_FRESH = 8000
"""Test samples that a truth is computed from."""
_FAMILY_SEEDS = 5
_LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCoverage:
    """What one kind of interval came to over all data sets."""

    population: str
    """Its name."""
    split: str
    """How samples are divided."""
    of: str
    """ACCURACY, NO_DIFFERENCE or A_DIFFERENCE."""
    num_seeds: int
    """A data set."""
    coverage: float
    """Share of intervals that held the truth."""
    found: float | None
    """Share of p below .05: of NO_DIFFERENCE false ones, of A_DIFFERENCE the power. None for accuracies."""
    median_width: float
    """Of the intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyErrors:
    """False findings among several comparisons, nothing being there to be found."""

    population: str
    """Its name."""
    of: str
    """What is compared."""
    each: float
    """Share of p below .05."""
    any: float
    """Share of data sets with one such at least."""
    any_holm: float
    """The same of p after Holm's correction."""


@one_thread()
def simulate_pairs(
    population: Population, kind: str, num_repeats: int, *, shots: int | None = None, seed: int = 0
) -> list[PairedCoverage]:
    """Coverage of an accuracy, of a difference of none in expectation, and of one that there is."""
    chance, most = np.random.default_rng(seed), max(NUM_SEEDS)
    num_parts = most if kind == INDEPENDENT else 1
    rule = SplitRule(kind=kind, group=population.group_size > 1, shots=shots, num_parts=num_parts)
    drawn, truths = [], []
    for _ in range(num_repeats):
        data, splits = _data(population, chance, kind, num_parts)
        sides = [_divided(data.draw, splits, rule, each, part=each % num_parts) for each in range(most)]
        trials = [[trial_of(x, data.draw.y, side) for x in data.views] for side in sides]
        lighter = replace(data.draw, x=data.draw.x[:0])  # thousands of these are kept
        drawn.append((lighter, sides[0], [[each.correct for each in row] for row in trials]))
        truths.append(_truths(population, chance, data, splits, rule))
    of_any = np.mean(truths, 0)  # what a new data set's heads can be expected to have
    said = "few-shot" if shots else kind
    return [
        _row(population, said, of, num_seeds, [make(each, num_seeds) for each in drawn], held)
        for num_seeds in NUM_SEEDS
        for of, make, held in _kinds(kind, np.array(truths), of_any)
    ]


@one_thread()
def simulate_family(population: Population, num_repeats: int, *, seed: int = 0) -> list[FamilyErrors]:
    """Errors of NUM_COMPARISONS differences of none, all with the same first, and of as many shuffled controls."""
    chance = np.random.default_rng(seed)
    rule = SplitRule(kind=RESPLIT, group=population.group_size > 1)
    of_differences, of_shuffled = [], []
    for _ in range(num_repeats):
        data = _views(population, chance, NUM_COMPARISONS + 1)
        right_SV, told_SV, chances, side = [], [], [], None
        for each in range(_FAMILY_SEEDS):
            side = _divided(data.draw, None, rule, each)
            shuffled = shuffled_labels(data.draw.y, side, each)
            right_SV.append([trial_of(x, data.draw.y, side).test_accuracy for x in data.views])
            told = [trial_of(x, shuffled, side) for x in data.views[1:]]
            told_SV.append([each.test_accuracy for each in told])
            chances.append(max(told[0].chance, 1 / len(population.class_counts)))
        assert side is not None
        num_test = len(side.test)
        off_VS = (np.array(right_SV)[:, 1:] - np.array(right_SV)[:, :1]).T
        num_rest = len(data.draw.y) - num_test
        intervals = [corrected_resampled_interval(off, num_rest, num_test, difference=True) for off in off_VS]
        of_differences.append([1.0 if each.p is None else each.p for each in intervals])
        of_shuffled.append([excess_p(off, num_test)[1] for off in (np.array(told_SV).T - chances)])
    return [
        _family(population, "differences of none", of_differences),
        _family(population, "shuffled labels above chance", of_shuffled),
    ]


def table_row(row: PairedCoverage | FamilyErrors) -> str:
    """A row of the table that HEADER or FAMILY_HEADER begins."""
    if isinstance(row, FamilyErrors):
        return (
            f"| {row.population} | {row.of} | {_FAMILY_SEEDS} | {row.each:.3f} | {row.any:.3f} | {row.any_holm:.3f} |\n"
        )
    found = "" if row.found is None else f"{row.found:.3f}"
    return (
        f"| {row.population} | {row.split} | {row.of} | {row.num_seeds} | {row.coverage:.3f} | {found} "
        f"| {row.median_width:.3f} |\n"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Viewed:
    """The same samples seen in several ways, each as good as the others, and correlated by half."""

    draw: Draw
    """The samples."""
    views: list[np.ndarray]
    """float64 [n, dims] each."""


_Drawn = tuple[Draw, Partition, list[list[np.ndarray]]]
"""A data set, its first division, and what was right: [seeds][views] of bool [test items]."""


def _views(population: Population, chance: np.random.Generator, num: int, share: float = 1.0) -> _Viewed:
    shared = population.draw(chance, share)
    others = [population.draw(chance, share) for _ in range(num)]  # labels come in the same order
    return _Viewed(draw=shared, views=[shared.x + other.x for other in others])


def _three(population: Population, chance: np.random.Generator, share: float = 1.0) -> _Viewed:
    """Two views, and of the first half the numbers."""
    two = _views(population, chance, 2, share)
    return _Viewed(draw=two.draw, views=[*two.views, two.views[0][:, : population.num_dims // 2]])


def _data(
    population: Population, chance: np.random.Generator, kind: str, num_parts: int
) -> tuple[_Viewed, list[str] | None]:
    if kind != GIVEN:
        return _three(population, chance, num_parts), None
    train, test = _three(population, chance), _three(population, chance, 0.5)
    views = [np.concatenate(pair) for pair in zip(train.views, test.views, strict=True)]
    splits = [TRAIN] * len(train.draw.y) + [TEST] * len(test.draw.y)
    return _Viewed(draw=joined(train.draw, test.draw), views=views), splits


def _divided(data: Draw, splits: Sequence[str] | None, rule: SplitRule, seed: int, part: int = 0) -> Partition:
    return partition(data.keys, data.y, data.groups, splits, rule, seed, part=part)


def _truths(
    population: Population,
    chance: np.random.Generator,
    data: _Viewed,
    splits: Sequence[str] | None,
    rule: SplitRule,
) -> list[float]:
    """Accuracies of the views on fresh samples: of heads from this train set where it is given, else from a new one."""
    seeds = range(100, 110) if rule.kind == GIVEN else range(1)
    if rule.kind != GIVEN:
        data = _three(population, chance)
        rule = SplitRule(kind=RESPLIT, group=rule.group, shots=rule.shots)
    fresh = _three(population, chance, _NUM_FRESH / sum(population.class_counts))
    y = np.concatenate([data.draw.y, fresh.draw.y])
    test = np.arange(len(data.draw.y), len(y))
    sides = [_divided(data.draw, splits, rule, seed) for seed in seeds]
    found = []
    for x, x_fresh in zip(data.views, fresh.views, strict=True):
        every = np.concatenate([x, x_fresh])
        outcomes = (
            trial_of(every, y, Partition(train=each.train, validation=each.validation, test=test)) for each in sides
        )
        found.append(float(np.mean([outcome.test_accuracy for outcome in outcomes])))
    return found


def _kinds(
    kind: str, truths_RV: np.ndarray, of_any_V: np.ndarray
) -> list[tuple[str, Callable[[_Drawn, int], Interval], list[float]]]:
    """What is estimated, how, and the truth for each data set."""
    held_RV = truths_RV if kind == GIVEN else np.broadcast_to(of_any_V, truths_RV.shape)
    nothing = held_RV[:, 1] - held_RV[:, 0] if kind == GIVEN else np.zeros(len(truths_RV))
    return [
        (ACCURACY, lambda drawn, num: _interval(kind, drawn, num, 0, None), held_RV[:, 0].tolist()),
        (NO_DIFFERENCE, lambda drawn, num: _interval(kind, drawn, num, 1, 0), nothing.tolist()),
        (A_DIFFERENCE, lambda drawn, num: _interval(kind, drawn, num, 2, 0), (held_RV[:, 2] - held_RV[:, 0]).tolist()),
    ]


def _interval(kind: str, drawn: _Drawn, num_seeds: int, view: int, other: int | None) -> Interval:
    data, side, correct = drawn
    difference = other is not None
    if kind == GIVEN:
        of_test = side.test.tolist()
        groups = None if data.groups is None else [data.groups[position] for position in of_test]
        right_SM = np.stack([row[view] for row in correct[:num_seeds]]).astype(np.int64)
        if other is not None:
            right_SM = right_SM - np.stack([row[other] for row in correct[:num_seeds]])
        return items_interval(right_SM, groups, data.y[side.test], difference=difference)
    values = [
        float(row[view].mean()) - (0.0 if other is None else float(row[other].mean())) for row in correct[:num_seeds]
    ]
    if kind == INDEPENDENT:
        return t_interval(values, difference=difference)
    num_test = len(side.test)
    return corrected_resampled_interval(values, len(data.y) - num_test, num_test, difference=difference)


def _row(
    population: Population,
    split: str,
    of: str,
    num_seeds: int,
    intervals: Sequence[Interval],
    truths: Sequence[float],
) -> PairedCoverage:
    bounds = [each.bounds or (each.mean, each.mean) for each in intervals]
    holds = [low <= truth <= high for (low, high), truth in zip(bounds, truths, strict=True)]
    p_values = [1.0 if each.p is None else each.p for each in intervals]
    return PairedCoverage(
        population=population.name,
        split=split,
        of=of,
        num_seeds=num_seeds,
        coverage=float(np.mean(holds)),
        found=None if of == ACCURACY else float(np.mean(np.array(p_values) < _LEVEL)),
        median_width=float(np.median([high - low for low, high in bounds])),
    )


def _family(population: Population, of: str, p_values_RC: Sequence[Sequence[float]]) -> FamilyErrors:
    found_RC = np.array(p_values_RC) < _LEVEL
    corrected_RC = np.array([holm(row) for row in p_values_RC]) < _LEVEL
    return FamilyErrors(
        population=population.name,
        of=of,
        each=float(found_RC.mean()),
        any=float(found_RC.any(1).mean()),
        any_holm=float(corrected_RC.any(1).mean()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=NUM_REPEATS, help="data sets of each population and split")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    plain, grouped = RESPLIT_POPULATIONS[0], GIVEN_POPULATIONS[-1]
    sys.stdout.write(HEADER)
    for population, kind, shots in (
        (plain, RESPLIT, None),
        (grouped, RESPLIT, None),
        (plain, RESPLIT, 5),
        (plain, INDEPENDENT, None),
        (plain, GIVEN, None),
        (grouped, GIVEN, None),
    ):
        rows = simulate_pairs(population, kind, options.repeats, shots=shots, seed=options.seed)
        sys.stdout.writelines(map(table_row, rows))
        sys.stdout.flush()
    sys.stdout.write(FAMILY_HEADER)
    sys.stdout.writelines(map(table_row, simulate_family(plain, options.repeats, seed=options.seed)))


if __name__ == "__main__":
    main()
