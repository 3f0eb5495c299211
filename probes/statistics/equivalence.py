"""Means with Student's interval, and whether a ratio is 1 within a tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL, EQUIVALENCE_LEVEL = 0.95, 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanInterval:
    """A mean with Student's interval, not clipped to any range."""

    mean: float
    """Of the values."""
    low: float
    """The lower bound."""
    high: float
    """The upper bound."""


def mean_interval(values: Sequence[float], level: float = LEVEL) -> MeanInterval:
    """Student's t (1908) over independent values: mean ± t·s/√n, with n - 1 degrees of freedom; two or more values."""
    from scipy.special import stdtrit

    num = len(values)
    mean = math.fsum(values) / num
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (num - 1) / num)
    half = float(stdtrit(num - 1, (1 + level) / 2)) * error
    return MeanInterval(mean=mean, low=mean - half, high=mean + half)


def equivalence(ratios: Sequence[float], tolerance: float) -> tuple[bool, MeanInterval]:
    """Whether a ratio is 1 within ± tolerance, by two one-sided tests at .05 on its logarithm (Schuirmann 1987).

    Both tests reject where Student's 90 % interval of the mean logarithm lies between log(1 - tolerance) and
    log(1 + tolerance), and so they are done. The interval is returned as ratios, its mean being the geometric one.
    """
    found = mean_interval([math.log(ratio) for ratio in ratios], EQUIVALENCE_LEVEL)
    holds = math.log(1 - tolerance) < found.low and found.high < math.log(1 + tolerance)
    return holds, MeanInterval(mean=math.exp(found.mean), low=math.exp(found.low), high=math.exp(found.high))
