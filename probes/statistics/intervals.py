"""Intervals for accuracies over seeds: of what, how, and where the formula comes from.

Axes: S seeds, M test items, C clusters (groups of items, or the items themselves).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
_WILSON = "Wilson's score interval (1927)"
ONE_HEAD, SOME_HEADS = "the one head that was fitted", "heads fitted on draws from this train set"
"""What a test set's interval is of, where seeds decide nothing and where they draw from train."""
_ROUNDING = 1e-15
"""A variance below comes of values that are all equal, or all equal within their class."""
_EQUAL = 1e-9
"""Accuracies of fewer than a milliard samples that are nearer to each other are equal but for rounding."""
_ONE_SEED = "one seed says nothing of how much seeds differ: run five or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its interval, or the reason why there is none."""

    mean: float
    """The estimate."""
    bounds: tuple[float, float] | None
    """At LEVEL; within [0, 1] for accuracies, within [-1, 1] for differences; None where there is none."""
    estimand: str
    """What the interval is of, a sentence."""
    method: str
    """How it is made, a sentence with its source."""
    reason: str | None = None
    """Why there are no bounds."""
    error: float | None = None
    """Standard error of the mean, where one was found; bounds of Student's t are the mean ± t times this."""
    freedom: float = math.inf
    """Degrees of freedom of `error`."""
    seeds_error: float = 0.0
    """The part of `error` (the root of a share of its square) that more test items would not make smaller."""

    @property
    def p(self) -> float | None:
        """Two-sided p of the hypothesis that a difference is none, by Student's t: below .05 where 0 is out of bounds.

        None where there is no error to measure the mean by: with one seed, or where all differences are equal but not
        none.
        """
        if self.error is None:
            return None
        if self.error == 0:
            return 1.0 if abs(self.mean) < _EQUAL else None
        from scipy.stats import t

        return float(2 * t.sf(abs(self.mean) / self.error, self.freedom))

    def half_width(self) -> float | None:
        """Of an interval by Student's t, not clipped; None without an error."""
        return None if self.error is None else _t(self.freedom) * self.error


def t_interval(values: Sequence[float], *, difference: bool = False) -> Interval:
    """Student's t: for accuracies of independent draws (everything drawn anew), never of resplits."""
    return _mean_interval(
        values,
        factor=1 / len(values),
        floor_items=None,
        difference=difference,
        estimand=f"{_what(difference)} that a head fitted on newly drawn samples can be expected to have",
        method=f"Student's t over {len(values)} independent draws (1908)",
    )


def corrected_resampled_interval(
    values: Sequence[float], num_train: float, num_test: float, *, difference: bool = False
) -> Interval:
    """For `resplit`: accuracies of k resplits of the same samples, each with `num_test` of them in test.

    `num_train` counts all that are not in test, validation too. With `difference`, values are paired differences
    of accuracies, seed by seed.
    """
    num = len(values)
    return _mean_interval(
        values,
        factor=1 / num + num_test / num_train,
        floor_items=num_test,
        difference=difference,
        estimand=f"{_what(difference)} on new samples that a head can be expected to have when it is fitted on a new "
        "train set of this size from the same population, with classes in the shares that they have here",
        method=f"corrected resampled t over {num} resplits, which overlap: variance × (1/{num} + "
        f"{num_test:g}/{num_train:g}) (Nadeau & Bengio 2003)",
    )


def items_interval(
    correct_SM: np.ndarray,
    groups: Sequence[str | None] | None = None,
    labels: np.ndarray | None = None,
    *,
    difference: bool = False,
    heads: str = SOME_HEADS,
) -> Interval:
    """For `given`, and wherever all seeds have one test set: right or wrong [seeds, test items].

    Items of a group vary together. With the items' `labels`, int64 [test items], new items are thought of as drawn
    class by class, in the shares that classes have in test; without, as drawn from all. With `difference`, the numbers
    are differences of two such arrays, in {-1, 0, 1}. One seed will do: the estimand is then the one head's accuracy,
    and says so; else it is of `heads`.
    """
    x_SM = np.asarray(correct_SM, np.float64)
    num_seeds, num_items = x_SM.shape
    cluster_M = clusters(groups, num_items)
    class_M = np.zeros(num_items, np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    num_clusters, num_classes = int(cluster_M.max()) + 1, int(class_M.max()) + 1
    unit = "items" if num_clusters == num_items else "groups"
    heads = ONE_HEAD if num_seeds == 1 else heads
    has = "has" if heads == ONE_HEAD else "have on average"
    estimand = f"{_what(difference)} that {heads} {has} on new test {unit} from the same population"
    estimand += "" if labels is None else ", with classes in the shares that they have in test"
    interval = "Student's t" if difference else f"{_WILSON} with the effective number of items"
    method = (
        f"two-way random effects, {num_clusters} test {unit}{'' if labels is None else ' within classes'} × "
        f"{num_seeds} seed{'' if num_seeds == 1 else 's'}, by analysis of variance "
        f"(Searle, Casella & McCulloch 1992) with Satterthwaite's degrees of freedom (1946); {interval}"
    )
    mean = float(x_SM.mean())
    if num_clusters <= num_classes:
        reason = f"test has too few {unit} ({num_clusters}) to say how much they differ"
        return Interval(mean=mean, bounds=None, estimand=estimand, method=method, reason=reason)
    found = _two_way_variance(x_SM, cluster_M, class_M)
    if difference and labels is not None and found.total <= _ROUNDING:  # only classes differ, or nothing does
        return items_interval(x_SM, groups, difference=True, heads=heads)
    varies = found.total > _ROUNDING
    error = math.sqrt(found.total) if varies else 0.0
    half = _t(found.freedom) * error
    bounds = _clipped(mean - half, mean + half, -1.0) if varies else None
    if not difference:
        items = mean * (1 - mean) / found.total if varies else float(num_clusters)
        bounds = _wilson(mean, items, _t(found.freedom))
    return Interval(
        mean=mean,
        bounds=bounds,
        estimand=estimand,
        method=method,
        reason=_all_equal(num_clusters) if bounds is None else None,
        error=error,
        freedom=found.freedom,
        seeds_error=math.sqrt(found.of_seeds),
    )


def _mean_interval(
    values: Sequence[float],
    *,
    factor: float,
    floor_items: float | None,
    difference: bool,
    estimand: str,
    method: str,
) -> Interval:
    mean, freedom = float(np.mean(values)), max(1, len(values) - 1)
    bounds, reason, error = None, None, None
    if len(values) < 2:
        reason = _ONE_SEED
    elif np.ptp(values) > _EQUAL:
        error = float(np.std(values, ddof=1)) * math.sqrt(factor)
        half = _t(freedom) * error
        bounds = _clipped(mean - half, mean + half, -1.0 if difference else 0.0)
    elif difference or floor_items is None:
        error, reason = 0.0, _all_equal(len(values))
    else:
        bounds = _wilson(mean, floor_items, _t(math.inf))
        method = f"{_WILSON} for {floor_items:g} test items, since all {len(values)} values are equal"
    return Interval(
        mean=mean, bounds=bounds, estimand=estimand, method=method, reason=reason, error=error, freedom=freedom
    )


def _all_equal(num: int) -> str:
    return f"all {num} values are equal, which says nothing of how much they could differ"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variance:
    """Of a mean over seeds and clusters."""

    total: float
    """All of it."""
    of_seeds: float
    """What of it more clusters would not make smaller."""
    freedom: float
    """Degrees of freedom of `total`."""


def _two_way_variance(x_SM: np.ndarray, cluster_M: np.ndarray, class_M: np.ndarray) -> _Variance:
    """The variance of the mean when seeds and clusters are both drawn.

    A value is its class's mean + seed + cluster + what is left over; the mean's variance is the sum of the last three's
    over how many there are of each.
    """
    num_seeds, num_items = x_SM.shape
    classes_MK = np.eye(int(class_M.max()) + 1)[class_M]
    off_SM = x_SM - (x_SM @ (classes_MK / classes_MK.sum(0)))[:, class_M]
    off_of_item_M = off_SM.mean(0)
    clusters = [np.bincount(cluster_M, off_M) for off_M in (off_of_item_M, *(off_SM - off_of_item_M))]
    free_items = len(clusters[0]) - classes_MK.shape[1]
    squares = np.square(clusters).sum(1) * len(clusters[0]) / free_items / num_items**2
    of_items = float(squares[0])
    if num_seeds == 1:
        return _Variance(total=of_items, of_seeds=0.0, freedom=free_items)
    free_seeds = num_seeds - 1
    of_rest = float(squares[1:].sum()) / (num_seeds * free_seeds)
    of_seeds = float(x_SM.mean(1).var(ddof=1)) / num_seeds
    if of_seeds <= of_rest:  # no more than what is left over makes of it
        return _Variance(total=of_items, of_seeds=0.0, freedom=free_items)
    total = of_items + of_seeds - of_rest
    spread = of_items**2 / free_items + of_seeds**2 / free_seeds + of_rest**2 / (free_items * free_seeds)
    return _Variance(total=total, of_seeds=of_seeds - of_rest, freedom=total**2 / spread)


def clusters(groups: Sequence[str | None] | None, num_items: int) -> np.ndarray:
    """The number of each item's group; an item without one is its own."""
    if groups is None:
        return np.arange(num_items)
    names = [(True, str(place)) if name is None else (False, name) for place, name in enumerate(groups)]
    number = {name: each for each, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.int64)


def _wilson(mean: float, num_items: float, quantile: float) -> tuple[float, float]:
    pull = quantile**2 / num_items
    middle = (mean + pull / 2) / (1 + pull)
    half = math.sqrt(pull * mean * (1 - mean) + pull**2 / 4) / (1 + pull)
    return _clipped(min(middle - half, mean), max(middle + half, mean), 0.0)  # rounding must not shut the mean out


def _t(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))


def _clipped(low: float, high: float, least: float) -> tuple[float, float]:
    return max(low, least), min(high, 1.0)


def _what(difference: bool) -> str:
    return "the difference of the test accuracies" if difference else "the test accuracy"
