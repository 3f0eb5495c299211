"""An interval for a median that assumes nothing about the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which the median lies with at least CONFIDENCE; the extremes below 6 values.

    By order statistics: each value is below the median with probability one half.
    """
    ordered, n = sorted(values), len(values)
    outside, cut = 0.0, 0  # how likely the median is outside once `cut` values are cut off on either side
    while cut < (n - 1) // 2:
        outside += 2 * math.comb(n, cut) / 2**n
        if outside > 1 - CONFIDENCE:
            break
        cut += 1
    at = max(cut - 1, 0)
    return ordered[at], ordered[n - 1 - at]
