"""What raw durations come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import numpy as np

from fovcache.errors import UsageError
from fovcache.pipeline.stage import Stage

from .result import StageTimes

CI_METHOD = (
    "Student's t over units: samples, or batches for stages that take whole batches and for the overlapped run, where "
    "neighbours are not quite independent"
)
MIN_UNITS = 2
"""With fewer there is no interval."""
_CONFIDENCE = 0.95


@dataclass(slots=True, kw_only=True)
class StageUnits:
    """What was measured of a stage, raw."""

    durations_s: list[float] = field(default_factory=list)
    """Seconds of each unit that came through it."""
    num_failed: int = 0
    """Units that failed in it."""
    failed_s: float = 0.0
    """Seconds of those."""
    core_s: float = 0.0
    """Core-seconds of all."""

    @property
    def total_s(self) -> float:
        """Seconds of all units."""
        return math.fsum(self.durations_s) + self.failed_s


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The mean, and its 95 % interval by Student's t for independent values, of which there must be two."""
    if len(values) < MIN_UNITS:
        raise UsageError(f"an interval of {len(values)} values; expected at least {MIN_UNITS}")
    from scipy.special import stdtrit

    mean = fmean(values)
    reach = float(stdtrit(len(values) - 1, (1 + _CONFIDENCE) / 2)) * stdev(values, mean) / math.sqrt(len(values))
    return mean, (mean - reach, mean + reach)


def stage_times(stage: Stage, units: StageUnits, *, samples_per_unit: int, wall_s: float) -> StageTimes:
    """A stage's row; at least two of its units must have come through it."""
    samples_s = np.asarray(units.durations_s) / samples_per_unit
    mean_s, interval_s = mean_interval(samples_s.tolist())
    p10_s, median_s, p90_s = np.percentile(samples_s, (10, 50, 90)).tolist()
    total_s = units.total_s
    return StageTimes(
        id=stage.id,
        name=stage.name,
        resource=stage.resource,
        n=len(samples_s) * samples_per_unit,
        num_units=len(samples_s),
        failed=units.num_failed * samples_per_unit,
        failed_s=units.failed_s,
        total_s=total_s,
        mean_s=mean_s,
        median_s=median_s,
        p10_s=p10_s,
        p90_s=p90_s,
        ci95_s=interval_s,
        share=total_s / wall_s,
        cpu_s=mean_s * units.core_s / total_s if total_s > 0 else 0.0,
    )
