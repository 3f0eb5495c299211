"""Measures a workload: its stages one at a time, then overlapped."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Any

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.builder.request import available_cores
from fovcache.errors import UsageError

from .environment import cpu_limit_cores
from .faults import ProfileFault, failures, watched
from .overhead import MeasuringCosts, overhead
from .overlapped import OverlappedMeasurement
from .result import Fault, Overhead, OverlappedRun, SerialRun, Span, StageTimes
from .serial import SerialMeasurement
from .steady_state import SteadyState
from .workload import Workload

logger = logging.getLogger(__name__)

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
    window_s: tuple[float, float] | None = None
    """Of the overlapped run's steady state, on `time.perf_counter`."""
    failures: tuple[dict[str, Any], ...] = ()
    """`{uri, stage, reason, n}`, of both runs and their warm-ups."""
    fault: Fault | None = None
    """What ended it early."""


def measure(
    workload: Workload,
    *,
    num_samples: int = NUM_SAMPLES,
    warmup_batches: int = WARMUP_BATCHES,
    timeout_s: float = TIMEOUT_S,
    on_progress: OnProgress = silent,
) -> Measurement:
    """Run the stages serially, then overlapped, and measure `num_samples` of each run, in whole batches.

    The stages run in other threads than the caller's, which see none of its thread-local settings, such as torch's
    `no_grad`. A stage or source that raises, takes longer than `timeout_s` on an item, or lets nothing through ends
    the profile: see `fault`. What hangs is left behind in a daemon thread whose name begins with `fovcache-`.
    Raises UsageError for settings that make no sense.
    """
    runs = _Runs(workload, num_samples, warmup_batches, timeout_s, on_progress)
    fault = None
    try:
        runs.run_serial()
        runs.run_overlapped()
    except ProfileFault as error:
        logger.debug("the profile ends early", exc_info=error)
        fault = Fault(stage=error.stage, reason=error.reason)
    return runs.measurement(fault)


def measure_overlapped(
    workload: Workload,
    *,
    num_samples: int = NUM_SAMPLES,
    warmup_batches: int = WARMUP_BATCHES,
    timeout_s: float = TIMEOUT_S,
    on_progress: OnProgress = silent,
) -> OverlappedRun:
    """Only the overlapped run, to measure what a change brings. Raises ProfileFault where `measure` has a fault."""
    runs = _Runs(workload, num_samples, warmup_batches, timeout_s, on_progress)
    runs.run_overlapped()
    return SteadyState(runs.overlapped).result(_num_cores())


class _Runs:
    """Both runs of a workload."""

    def __init__(
        self, workload: Workload, num_samples: int, warmup_batches: int, timeout_s: float, on_progress: OnProgress
    ) -> None:
        if num_samples < 1 or warmup_batches < 1:
            raise UsageError(
                f"{num_samples} samples after {warmup_batches} batches of warm-up; expected at least 1 of each"
            )
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise UsageError(f"timeout_s is {timeout_s}; expected more than 0 s")
        size = workload.batch_size
        num_batches = max(MIN_BATCHES, math.ceil(max(MIN_SAMPLES, num_samples) / size))
        self.serial = SerialMeasurement(
            workload, num_batches=num_batches, num_warmup=warmup_batches, timeout_s=timeout_s
        )
        self.overlapped = OverlappedMeasurement(
            workload, num_batches=num_batches, num_warmup=warmup_batches, timeout_s=timeout_s
        )
        self._size = size
        self._timeout_s = timeout_s
        self._on_progress = on_progress

    def run_serial(self) -> None:
        """Raises ProfileFault."""
        run = self.serial
        total = run.num_warmup + run.num_batches
        watched(
            run.run,
            run.recorder,
            timeout_s=self._timeout_s,
            on_tick=lambda: self._show("one at a time", run.num_done, total),
        )

    def run_overlapped(self) -> None:
        """Raises ProfileFault."""
        run = self.overlapped
        watched(
            run.run,
            run.recorder,
            timeout_s=self._timeout_s,
            close=run.close,
            on_tick=lambda: self._show(
                "overlapped", len(run.steps), (run.num_warmup or run.num_expected) + run.num_batches
            ),
        )

    def measurement(self, fault: Fault | None) -> Measurement:
        """What was measured until the end, or until a fault."""
        serial, overlapped = self.serial, self.overlapped
        found = Measurement(
            warmup_dropped=serial.num_dropped,
            stages=(stages := serial.stages()),
            units_s=serial.units_s(),
            failures=failures(serial.tally, overlapped.tally),
            fault=fault,
        )
        if serial.is_over:
            found = replace(found, serial=serial.result(stages))
        if fault is not None:
            return found
        steady_state = SteadyState(overlapped)
        return replace(
            found,
            warmup_dropped=serial.num_dropped + overlapped.num_dropped,
            overlapped=steady_state.result(_num_cores()),
            overhead=overhead(MeasuringCosts.on(serial.workload.device), serial, overlapped),
            timeline=steady_state.timeline(),
            window_s=steady_state.window_s,
        )

    def _show(self, what: str, num_batches: int, total: int) -> None:
        done = min(num_batches, total) * self._size
        self._on_progress(Progress(stage=what, done=done, total=total * self._size))


def _num_cores() -> float:
    """That this process may use."""
    return min(available_cores(), cpu_limit_cores() or math.inf)
