"""What measuring costs: each of its parts measured alone, times how often it was done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fovcache.pipeline.stage import Stage

from .core_time import core_seconds
from .device import DeviceTimer
from .overlapped import OverlappedMeasurement
from .recorder import Recorder
from .result import Overhead
from .serial import SerialMeasurement

HOW = "clocks, events and a synchronise of the idle device, each measured alone on stages that do nothing, times calls"
_NUM_CALLS = 100
_REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringCosts:
    """Seconds a call, the least of a few tries."""

    record_s: float
    """A stage's call recorded."""
    core_time_s: float
    """The CPU time read."""
    synchronize_s: float
    """The idle device synchronised."""
    mark_s: float
    """A mark set."""
    clock_s: float
    """The clock read."""

    @classmethod
    def on(cls, device: DeviceTimer) -> MeasuringCosts:
        """On this machine, now."""
        bare = Stage(id="bare", name="bare", resource="cpu", run=lambda item: item)
        recorded = Recorder().recorded(bare)
        device.synchronize()
        return cls(
            record_s=max(0.0, _cost_s(lambda: recorded.apply(0)) - _cost_s(lambda: bare.apply(0))),
            core_time_s=_cost_s(core_seconds),
            synchronize_s=_cost_s(device.synchronize),
            mark_s=_cost_s(device.mark),
            clock_s=_cost_s(time.perf_counter),
        )


def overhead(costs: MeasuringCosts, serial: SerialMeasurement, overlapped: OverlappedMeasurement) -> Overhead:
    """Of two runs that have come to their end. What threads do beside each other is added up, as if one waited."""
    num_batches, workload = serial.num_batches, serial.workload
    serial_s = serial.num_calls * (costs.record_s + 2 * costs.core_time_s + costs.clock_s)
    serial_s += num_batches * len(workload.steps) * costs.synchronize_s
    steps = overlapped.steps[overlapped.num_warmup :]
    num_waits = sum(len(step.waits_s) for step in steps)
    num_marks = sum(len(step.marks) for step in steps)
    num_calls = num_waits * len(workload.inputs) + len(steps) * len(workload.steps)
    overlapped_s = num_calls * costs.record_s + num_marks * costs.mark_s + 2 * num_waits * costs.clock_s
    return Overhead(
        serial_share=serial_s / serial.wall_s,
        overlapped_share=overlapped_s / (overlapped.host[1].at_s - overlapped.host[0].at_s),
        how=HOW,
    )


def _cost_s(function: Callable[[], object]) -> float:
    """Seconds a call: the least of a few means, as whatever else runs only adds to it."""
    means_s = []
    for _ in range(_REPEATS):
        start_s = time.perf_counter()
        for _ in range(_NUM_CALLS):
            function()
        means_s.append((time.perf_counter() - start_s) / _NUM_CALLS)
    return min(means_s)
