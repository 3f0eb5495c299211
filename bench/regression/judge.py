"""The statistics: how two sides of process-level numbers differ, and what counts as slower.

A side is one number per process. The functions take arrays whose last axis is the processes, so that the simulation
judges many comparisons at once with the very same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MIN_PROCESSES = 10
"""A side. Below 7 against 7 a two-sided p below ALPHA cannot occur at all."""
CONFIRMING_PROCESSES = 20
"""A side, for what looks slower after the first processes."""
ALPHA = 0.002
"""A slowdown's two-sided p is below it."""
SLOWER = 1.10
"""A slowdown's ratio is above it."""
SUSPECT_ALPHA, SUSPECT = 0.1, 1.05
"""The same for what is measured again before anybody is alarmed."""
_MAX_EXACT = 100
"""Processes a side up to which p is exact; the normal approximation is as good beyond."""
_Z = 1.959963984540054
"""The normal distribution's 97.5 % point, of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How HEAD's numbers lie to BASE's; arrays of the leading axes' shape."""

    p: np.ndarray
    """Two-sided, of Mann and Whitney's U. Exact; a little too large where clocks are coarse and numbers are tied."""
    ratio: np.ndarray
    """Hodges and Lehmann's: the median of all HEAD / BASE; above 1 HEAD is slower."""
    low: np.ndarray
    """Lower end of the ratio's 95 % interval, by the same ranks."""
    high: np.ndarray
    """Upper end."""
    delta: np.ndarray
    """Cliff's: how likely HEAD's is the larger number minus how likely BASE's is, −1 to 1."""

    def is_beyond(self, alpha: float, ratio: float) -> np.ndarray:
        """Where HEAD is significantly slower by more than `ratio`."""
        return np.asarray((self.p < alpha) & (self.ratio > ratio))

    @property
    def is_slower(self) -> np.ndarray:
        """What alarms: p below ALPHA and slower than SLOWER."""
        return self.is_beyond(ALPHA, SLOWER)

    @property
    def is_suspect(self) -> np.ndarray:
        """What is measured again."""
        return self.is_beyond(SUSPECT_ALPHA, SUSPECT)


def difference(base: np.ndarray, head: np.ndarray) -> Difference:
    """Compare positive numbers, float [..., processes] each; the sides may differ in their number of processes."""
    from scipy import stats

    num_base, num_head = base.shape[-1], head.shape[-1]
    method = "exact" if max(num_base, num_head) <= _MAX_EXACT else "asymptotic"
    test = stats.mannwhitneyu(head, base, axis=-1, method=method)
    logs = np.log(head)[..., :, None] - np.log(base)[..., None, :]
    ordered = np.sort(logs.reshape(*logs.shape[:-2], -1), -1)
    cut = interval_cut(num_base, num_head)
    return Difference(
        p=np.asarray(test.pvalue),
        ratio=np.exp(np.median(ordered, -1)),
        low=np.exp(ordered[..., cut]),
        high=np.exp(ordered[..., -1 - cut]),
        delta=2 * np.asarray(test.statistic) / (num_base * num_head) - 1,
    )


def interval_cut(num_base: int, num_head: int) -> int:
    """How many of all pairs' ratios, in order, lie outside a 95 % interval at either end."""
    pairs = num_base * num_head
    spread = math.sqrt(pairs * (num_base + num_head + 1) / 12)
    return max(0, math.floor(pairs / 2 - _Z * spread) - 1)
