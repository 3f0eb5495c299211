"""An interval for a difference over resplits, from single answers: what samples share, and what seeds and training add.

Axes: a cell is a seed's answer to a sample, or to a group of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .intervals import Interval, clusters

_ROUNDING = 1e-15
"""A variance below comes of answers that are all equal, or all equal within their class."""


def resplits_interval(
    off: Sequence[np.ndarray],
    positions: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_rest: float,
    groups: Sequence[str | None] | None = None,
) -> Interval:
    """Of the mean difference of two heads' test accuracies over resplits of the same samples.

    One array for each seed: differences in {-1, 0, 1} of what was right, the samples they are of, and their labels,
    int64. `num_rest` counts the samples that are not in test. `groups` are those of all samples, by position, where a
    group is on one side. Samples (or groups) and seeds are thought of as drawn, within classes, as `items_interval`
    has it; but here a sample is in test for some of the seeds only. What a new train set would change too, all seeds
    share, and no number of them shows: as in the corrected resampled t, the variance is multiplied by
    1 + test / rest for it, a rule of thumb.

    The corrected resampled t takes seeds' differences to be as correlated as their test sets overlap. Those of a pair
    of heads are less: mostly they are single answers that change with every train set.
    """
    num_seeds, num_test = len(off), float(np.mean([len(each) for each in off]))
    cluster_N = clusters(groups, 1 + max(int(each.max()) for each in positions))
    cluster = np.unique(cluster_N[np.concatenate(positions)], return_inverse=True)[1]
    seed = np.repeat(np.arange(num_seeds), [len(each) for each in off])
    unit = "samples" if groups is None else "groups"
    num_clusters = int(cluster.max()) + 1
    method = (
        f"two-way random effects, {num_clusters} {unit} that were in test, within classes, and {num_seeds} resplits, "
        f"by moments (Searle, Casella & McCulloch 1992), the variance × (1 + {num_test:g}/{num_rest:g}) for what "
        "resplits share of train (after Nadeau & Bengio 2003); Student's t"
    )
    estimand = (
        "the difference of the test accuracies on new samples that heads can be expected to have when they are fitted "
        "on a new train set of this size from the same population, with classes in the shares that they have here"
    )
    means_S = [float(each.mean()) for each in off]
    mean = float(np.mean(means_S))
    if num_seeds < 2:
        reason = "one seed says nothing of how much seeds differ: run five or more"
        return Interval(mean=mean, bounds=None, estimand=estimand, method=method, reason=reason)
    label = np.unique(np.concatenate(labels), return_inverse=True)[1]
    for class_of in (label, np.zeros_like(label)):  # where only classes differ, they are not set apart
        num_free = num_clusters - 1 - int(class_of.max())
        variance = _variance(off, cluster, seed, class_of) if num_free > 0 else 0.0
        if variance > _ROUNDING:
            break
    else:
        reason = f"all answers of {num_clusters} {unit} differ alike, which says nothing of how much they could"
        return Interval(mean=mean, bounds=None, estimand=estimand, method=method, reason=reason, error=0.0)
    error = math.sqrt(variance * (1 + num_test / num_rest))
    interval = Interval(mean=mean, bounds=None, estimand=estimand, method=method, error=error, freedom=num_free)
    half = interval.half_width()
    assert half is not None
    bounds = max(mean - half, -1.0), min(mean + half, 1.0)
    return Interval(mean=mean, bounds=bounds, estimand=estimand, method=method, error=error, freedom=num_free)


def _variance(off: Sequence[np.ndarray], cluster: np.ndarray, seed: np.ndarray, class_of: np.ndarray) -> float:
    """Of the mean over seeds, when seeds and clusters are both drawn.

    Clusters' share holds what is left over in cells too. Of seeds' share only what exceeds that is added.
    """
    values = np.concatenate(off).astype(np.float64)
    values -= (np.bincount(class_of, values) / np.bincount(class_of))[class_of]
    values /= len(off) * np.bincount(seed)[seed]
    num_clusters = int(cluster.max()) + 1
    correction = num_clusters / (num_clusters - 1 - int(class_of.max()))
    of_clusters = float(np.square(np.bincount(cluster, values)).sum()) * correction
    of_cells = float(np.square(np.bincount(cluster + num_clusters * seed, values)).sum()) * correction
    of_seeds = float(np.var([each.mean() for each in off], ddof=1)) / len(off)
    return of_clusters + max(0.0, of_seeds - of_cells)
