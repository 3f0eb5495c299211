"""The stages one at a time, nothing beside them, the device synchronised at the end of each step."""

from __future__ import annotations

import itertools
import time
from typing import Any

from fovcache.pipeline.stage import Failed, Stage

from .core_time import core_seconds
from .faults import SOURCE, ProfileFault, Tally
from .recorder import Recorder
from .result import SerialRun, StageTimes
from .summary import MIN_UNITS, StageUnits, stage_times
from .workload import Workload


class SerialMeasurement:
    """One serial run. What it has measured so far can be read at any time, also after a fault."""

    def __init__(self, workload: Workload, *, num_batches: int, num_warmup: int, timeout_s: float) -> None:
        """`num_warmup` batches are run first and dropped: whatever is loaded or compiled on first use falls there."""
        self.workload = workload
        self.recorder = Recorder()
        self.tally = Tally(workload.uri_of, workload.num_distinct, timeout_s)
        self.num_batches = num_batches
        self.num_warmup = num_warmup
        self.num_done = 0
        """Batches that came through, those of the warm-up included."""
        self.num_dropped = 0
        """Samples of the warm-up; 0 until it is over, as until then it is what is measured."""
        self.is_over = False
        """Whether all batches came through."""
        self.wall_s = 0.0
        """Until the last call of a stage, or batch, that is measured."""
        self.num_calls = 0
        """Of stages, as measured."""
        self._inputs = [self.recorder.recorded(stage) for stage in workload.inputs]
        self._steps = [self.recorder.recorded(stage, settle=workload.device.synchronize) for stage in workload.steps]
        self._begin()

    def run(self) -> None:
        """Warm-up and measurement. Raises ProfileFault."""
        items = self.recorder.source(self.workload.source())
        self._run_until(items, self.num_warmup)
        self.num_dropped = self.num_done * self.workload.batch_size
        self._begin()
        self._run_until(items, self.num_warmup + self.num_batches)
        self.wall_s = self._elapsed_s()
        self.is_over = True

    def stages(self) -> tuple[StageTimes, ...]:
        """A row for each stage of which enough is measured."""
        return tuple(
            stage_times(
                stage, self._units[stage.id], samples_per_unit=self._samples_per_unit(stage), wall_s=self.wall_s
            )
            for stage in self.workload.stages
            if len(self._units[stage.id].durations_s) >= MIN_UNITS
        )

    def result(self, stages: tuple[StageTimes, ...]) -> SerialRun:
        """Of a run that has come to its end, with the rows of all its stages."""
        num_samples = self.num_batches * self.workload.batch_size
        return SerialRun(
            s_per_sample=self.wall_s / num_samples,
            samples_per_hour=3600 * num_samples / self.wall_s,
            unattributed_share=1 - sum(stage.share for stage in stages),
            wall_s=self.wall_s,
            n=num_samples,
        )

    def units_s(self) -> dict[str, tuple[float, ...]]:
        """By stage: seconds a sample, of each unit."""
        return {
            stage.id: tuple(each / self._samples_per_unit(stage) for each in self._units[stage.id].durations_s)
            for stage in self.workload.stages
        }

    def _samples_per_unit(self, stage: Stage) -> int:
        return 1 if stage in self.workload.inputs else self.workload.batch_size

    def _begin(self) -> None:
        """Forget what is measured."""
        self._units = {stage.id: StageUnits() for stage in self.workload.stages}
        self.num_calls = 0
        self.wall_s = 0.0
        self._start_s = _wall_clock_s()

    def _elapsed_s(self) -> float:
        return _wall_clock_s() - self._start_s

    def _run_until(self, items: Any, num_batches: int) -> None:
        while self.num_done < num_batches:
            samples = (self._through(self._inputs, item) for item in items)
            batch = list(itertools.islice(filter(self.tally.has_sample, samples), self.workload.batch_size))
            if len(batch) < self.workload.batch_size:
                raise ProfileFault(SOURCE, f"ended after {self.tally.num_samples} samples; expected no end")
            result = self._through(self._steps, batch)
            self.num_done += self.tally.has_batch(result)

    def _through(self, stages: list[Stage], item: Any) -> Any:
        for stage in stages:
            if isinstance(item, Failed):
                break
            core_s = core_seconds()
            item = stage.apply(item)
            self._add(stage, core_seconds() - core_s)
        return item

    def _add(self, stage: Stage, core_s: float) -> None:
        """Take in the call that has just ended."""
        call, units = self.recorder.calls[stage.id][-1], self._units[stage.id]
        if call.has_failed:
            units.num_failed += 1
            units.failed_s += call.duration_s
        else:
            units.durations_s.append(call.duration_s)
        units.core_s += core_s
        self.num_calls += 1
        self.wall_s = self._elapsed_s()


def _wall_clock_s() -> float:
    """By another clock than the stages' own, where there is one."""
    if hasattr(time, "CLOCK_MONOTONIC_RAW"):
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    return time.monotonic()
