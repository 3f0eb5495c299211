"""Measures a workload: its stages one at a time, then overlapped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.builder.request import available_cores
from fovcache.errors import UsageError

from .faults import ProfileFault, Tally, watched
from .overhead import MeasuringCosts, overhead
from .overlapped import OverlappedMeasurement
from .recorder import Recorder
from .result import Fault, OverlappedRun, Overhead, SerialRun, Span, StageTimes
from .serial import SerialMeasurement
from .steady_state import SteadyState
from .workload import Workload

NUM_SAMPLES = 64
"""Measured in each run unless said otherwise."""
MIN_SAMPLES = 20
"""Measured in each run at least."""
MIN_BATCHES = 3
"""Measured in each run at least."""
WARMUP_BATCHES = 2
"""Dropped in each run unless said otherwise."""
TIMEOUT_S = 300.0
"""A stage that takes longer on one item hangs, unless said otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is measured, and for how long a stage may take."""

    num_samples: int = NUM_SAMPLES
    """In each run; rounded up to whole batches, at least MIN_SAMPLES and MIN_BATCHES."""
    warmup_batches: int = WARMUP_BATCHES
    """Dropped in each run; at least 1. The overlapped run drops more where its queues take longer to settle."""
    timeout_s: float = TIMEOUT_S
    """For one item in one stage, seconds."""

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.warmup_batches < 1:
            raise UsageError(
                f"{self.num_samples} samples after {self.warmup_batches} batches of warm-up; expected at least 1 of each"
            )
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise UsageError(f"timeout_s is {self.timeout_s}; expected more than 0 s")

    def num_batches(self, batch_size: int) -> int:
        """Batches that are measured."""
        return max(MIN_BATCHES, math.ceil(max(MIN_SAMPLES, self.num_samples) / batch_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Both runs, as a Profile takes them. What a fault left unmeasured is None or empty."""

    warmup_dropped: int = 0
    """Samples, of both runs."""
    stages: tuple[StageTimes, ...] = ()
    """In pipeline order; after a fault those of which two units or more were measured."""
    units_s: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """By stage: seconds a sample of each unit that came through it in the serial run, in order."""
    serial: SerialRun | None = None
    """One stage at a time."""
    overlapped: OverlappedRun | None = None
    """As it would train."""
    overhead: Overhead | None = None
    """What measuring cost."""
    timeline: tuple[Span, ...] = ()
    """Of the overlapped run."""
    failures: tuple[dict[str, Any], ...] = ()
    """`{uri, stage, reason, n}`, of both runs and their warm-ups."""
    fault: Fault | None = None
    """What ended it early."""


def measure(workload: Workload, limits: Limits | None = None, *, on_progress: OnProgress = silent) -> Measurement:
    """Run the stages serially, then overlapped.

    They run in other threads than the caller's, which see none of its thread-local settings, such as torch's
    `no_grad`. A stage or source that raises, hangs or lets nothing through ends the profile: see `fault`. What hangs
    is left behind in a daemon thread whose name begins with `fovcache-`.
    """
    limits = limits or Limits()
    costs = MeasuringCosts.on(workload.device)
    serial = _Run(SerialMeasurement, workload, limits)
"""
