"""What an overlapped run came to, from the end of its warm-up to the end of its last batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from .intervals import Interval, shared_s, total_s
from .overlapped import OverlappedMeasurement
from .result import OverlappedRun, Span
from .summary import mean_interval

DEVICE_LANE = "device"
"""What the device ran; on the CPU, the training thread."""
MAX_SPANS = 2000
"""Of a timeline."""


class SteadyState:
    """The measured part of a run that has come to its end."""

    def __init__(self, measurement: OverlappedMeasurement) -> None:
        self._measurement = measurement
        self._workload = measurement.workload
        first = measurement.num_warmup
        self._steps = measurement.steps[first:]
        self._times_s = measurement.times_s[first:]
        self.window_s: Interval = (measurement.times_s[first - 1][-1], self._times_s[-1][-1])
        """On the device, on `time.perf_counter`."""
        self.wall_s = self.window_s[1] - self.window_s[0]
        """Its length."""

    def result(self, num_cores: float) -> OverlappedRun:
        """The run in numbers."""
        num_samples = sum(step.num_samples for step in self._steps)
        waits_s = [wait for step in self._measurement.steps for wait in step.waits_s]
        working_s = [(times_s[0], times_s[-1]) for times_s in self._times_s]
        ends_s = [self.window_s[0], *(end_s for _, end_s in working_s)]
        pauses_s = [(end_s, start_s) for end_s, (start_s, _) in zip(ends_s, working_s, strict=False)]
        _, interval_s = mean_interval(list(self._per_sample_s()))
        return OverlappedRun(
            s_per_sample=self.wall_s / num_samples,
            samples_per_hour=3600 * num_samples / self.wall_s,
            ci95_s=interval_s,
            busy=self._busy(working_s, num_cores),
            stall=shared_s(pauses_s, waits_s, self.window_s) / self.wall_s,
            wall_s=self.wall_s,
            n=num_samples,
            device_s=self._device_s(),
            num_workers=self._workload.num_workers,
            stage_busy=self._stage_busy(),
            host_wait=total_s(waits_s, self.window_s) / self.wall_s,
        )

    def timeline(self) -> tuple[Span, ...]:
        """What ran when, since the steady state began; its first part, if it has too many spans."""
        start_s, end_s = self.window_s
        spans = sorted(self._spans(), key=lambda span: span.start_s)
        inside = [
            Span(
                stage=span.stage,
                lane=span.lane,
                start_s=max(span.start_s, start_s) - start_s,
                end_s=min(span.end_s, end_s) - start_s,
            )
            for span in spans
            if span.end_s > start_s and span.start_s < end_s
        ]
        return tuple(inside[:MAX_SPANS])

    def _spans(self) -> Iterator[Span]:
        called = list(self._workload.inputs)
        if self._workload.device.is_async:  # else the step's calls are what the device does
            called += self._workload.steps
        for stage in called:
            for call in self._measurement.recorder.calls[stage.id]:
                yield Span(stage=stage.id, lane=call.lane, start_s=call.start_s, end_s=call.end_s)
        for stage_id, (start_s, end_s) in self._stage_times_s():
            yield Span(stage=stage_id, lane=DEVICE_LANE, start_s=start_s, end_s=end_s)

    def _stage_times_s(self) -> Iterator[tuple[str, Interval]]:
        """Each stage of each step, on the device."""
        for times_s in self._times_s:
            for stage, pair_s in zip(self._workload.steps, itertools.pairwise(times_s), strict=False):
                yield stage.id, pair_s

    def _per_sample_s(self) -> Iterator[float]:
        """Of each batch that came through; the time of one that failed is the next one's."""
        before_s = self.window_s[0]
        for step, times_s in zip(self._steps, self._times_s, strict=True):
            if step.num_samples:
                yield (times_s[-1] - before_s) / step.num_samples
                before_s = times_s[-1]

    def _device_s(self) -> dict[str, float]:
        totals = dict.fromkeys((stage.id for stage in self._workload.steps), 0.0)
        for stage, (start_s, end_s) in self._stage_times_s():
            totals[stage] += end_s - start_s
        num_samples = len(self._steps) * self._workload.batch_size
        return {stage: total / num_samples for stage, total in totals.items()}

    def _stage_busy(self) -> dict[str, float]:
        """Of the input stages' threads."""
        return {stage: _part(busy_s, capacity_s) for stage, (busy_s, capacity_s) in self._input_work().items()}

    def _input_work(self) -> dict[str, tuple[float, float]]:
        """By input stage: the seconds that its threads worked, and those that they had."""
        calls = self._measurement.recorder.calls
        return {
            stage: (
                total_s(((call.start_s, call.end_s) for call in calls[stage]), self.window_s),
                max(1, num_workers) * self.wall_s,
            )
            for stage, num_workers in self._workload.num_workers.items()
        }

    def _busy(self, working_s: Sequence[Interval], num_cores: float) -> dict[str, float]:
        work, busy = self._input_work(), {}
        for resource in dict.fromkeys(stage.resource for stage in self._workload.inputs if stage.resource != "cpu"):
            mine = [work[stage.id] for stage in self._workload.inputs if stage.resource == resource]
            busy[resource] = _part(sum(busy_s for busy_s, _ in mine), sum(capacity_s for _, capacity_s in mine))
        before, after = self._measurement.host
        busy["cpu"] = _part(after.core_s - before.core_s, num_cores * (after.at_s - before.at_s))
        device = "gpu" if self._workload.device.is_async else "step"
        busy[device] = _part(total_s(working_s, self.window_s), self.wall_s)
        return busy


def _part(used_s: float, capacity_s: float) -> float:
    """At most 1: live children's time comes in steps, and clocks differ a little."""
    return min(1.0, max(0.0, used_s / capacity_s)) if capacity_s > 0 else 0.0
