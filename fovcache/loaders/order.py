"""The order of an epoch: a function of (seed, epoch) and the number of rows, and of nothing else."""

from __future__ import annotations

import numpy as np


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows, int64 [num_rows], from numpy's Philox keyed by seed and epoch."""
    key = np.array([seed % 2**64, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_rows)
