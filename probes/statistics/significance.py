"""Tests of paired differences, and the correction of their p-values for being many.

Axes: S seeds, M test items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .intervals import LEVEL, clusters

_BATCH = 1_000_000
"""Items of resamples that are drawn at a time."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for how many there are (Holm 1979), in their order.

    Calling those below a level significant errs in any of them with at most that probability, whatever they have to do
    with each other.
    """
    num = len(p_values)
    corrected, least = [0.0] * num, 0.0
    for rank, place in enumerate(sorted(range(num), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (num - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def smallest_p(num_pairs: int) -> float:
    """The smallest p-value that a two-sided exact paired test (sign flips, Wilcoxon, McNemar) can give for n pairs."""
    return min(1.0, 2.0 ** (1 - num_pairs))


def mcnemar(off_M: np.ndarray) -> tuple[float, int]:
    """McNemar's exact p (binomial, two-sided, not mid-p), and how many items decide it.

    `off_M` is in {-1, 0, 1}: right by one head less right by the other, on independent test items. Only the items that
    one has right and the other wrong decide.
    """
    from scipy.stats import binomtest

    num_won, num = int((off_M > 0).sum()), int(np.count_nonzero(off_M))
    return (float(binomtest(num_won, num).pvalue) if num else 1.0), num


def effect_size(off: np.ndarray) -> float | None:
    """Cohen's d_z: the mean of paired differences in their standard deviations (ddof 1). None where they are equal."""
    sd = float(np.std(off, ddof=1)) if off.size > 1 else 0.0
    return float(np.mean(off)) / sd if sd > 1e-9 else None


def paired_bootstrap(
    off_SM: np.ndarray,
    groups: Sequence[str | None] | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[tuple[float, float], float]:
    """Percentile bounds at LEVEL and two-sided p of the mean of [seeds, test items], items (or groups) being resampled.

    An alternative to `intervals.items_interval` that assumes no distribution, for these heads: seeds are not resampled,
    of which few heads know too little. p is twice the share of resamples on the other side of none, (k + 1) / (n + 1),
    and at least that of none there; with few groups both are too small (below about 30, prefer the other).
    """
    off_M = np.asarray(off_SM, np.float64).mean(0)
    cluster_M = clusters(groups, len(off_M))
    sums_C, sizes_C = np.bincount(cluster_M, off_M), np.bincount(cluster_M)
    chance = np.random.Generator(np.random.Philox(seed))
    means: list[np.ndarray] = []
    batch = max(1, _BATCH // len(sums_C))
    for begin in range(0, num_resamples, batch):
        drawn_RC = chance.integers(0, len(sums_C), (min(batch, num_resamples - begin), len(sums_C)))
        means.append(sums_C[drawn_RC].sum(1) / sizes_C[drawn_RC].sum(1))
    found = np.concatenate(means)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    least = 1 + min(int((found <= 0).sum()), int((found >= 0).sum()))
    return (float(low), float(high)), min(1.0, 2 * least / (num_resamples + 1))
