"""Interquartile means: an aggregate over many cells that a few very good or bad ones do not move.

Axes: S seeds, C cells (tasks, layers, representations), R resamples.
"""

from __future__ import annotations

import numpy as np

from .intervals import LEVEL

_BATCH = 200


def iqm(values: np.ndarray) -> float:
    """Mean of the middle half of all numbers, of any shape: a quarter is cut off at each end (Agarwal et al. 2021)."""
    from scipy.stats import trim_mean

    return float(trim_mean(np.asarray(values), 0.25, axis=None))


def iqm_interval(values_SC: np.ndarray, *, num_resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap at LEVEL of the interquartile mean of [seeds, cells], stratified: seeds within each cell.

    As rliable has it, but for `seed`, which it ignores. It is for seeds that are independent draws, and independent
    from cell to cell. Resplits of the same samples are neither, so that `fovbench ablate` reports no such interval; and
    with few seeds it is too narrow (of one cell, it covers .84 with 5).
    """
    from scipy.stats import trim_mean

    values_SC = np.asarray(values_SC, np.float64)
    num_seeds, num_cells = values_SC.shape
    chance = np.random.Generator(np.random.Philox(seed))
    found = []
    for begin in range(0, num_resamples, _BATCH):
        drawn_RSC = chance.integers(0, num_seeds, (min(_BATCH, num_resamples - begin), num_seeds, num_cells))
        resampled_RSC = np.take_along_axis(values_SC[None], drawn_RSC, 1)
        found.append(trim_mean(resampled_RSC.reshape(len(drawn_RSC), -1), 0.25, axis=1))
    low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
