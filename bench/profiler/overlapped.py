"""The stages as they would train: inputs on their threads, the steps in one, the device never synchronised."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.stage import Failed, Stage

from .core_time import core_seconds
from .faults import SOURCE, ProfileFault, Tally
from .intervals import Interval
from .recorder import Recorder
from .workload import Workload

MAX_AHEAD = 2
"""Batches that the training thread may be ahead of a device that works by itself."""
MIN_WARMUP = 2
"""Batches dropped at least."""
_WAITS = 0.05
"""A training thread that waits less than this part of its time is not held up by its input."""
_QUIET_S = 10.0
"""So long is waited for threads that are still in a stage after the run."""


@dataclass(slots=True, kw_only=True)
class Step:
    """One batch in the training thread. Times are on `time.perf_counter`."""

    waits_s: list[Interval]
    """In which the thread waited for the batch's samples, or made them itself."""
    marks: list[Any] = field(default_factory=list)
    """Of the device: before the first stage, and after each."""
    num_samples: int = 0
    """That came through: none if a stage failed."""
    end_s: float = 0.0
    """When the thread was done with it."""
    counts: list[int] = field(default_factory=list)
    """Items that the source, and each input stage, had been through by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the host had used up."""

    at_s: float
    """When, on `time.perf_counter`."""
    core_s: float
    """Core-seconds, children included."""


class OverlappedMeasurement:
    """One overlapped run."""

    def __init__(self, workload: Workload, *, num_batches: int, num_warmup: int, timeout_s: float) -> None:
        """`num_warmup` batches are dropped at least; more until no queue fills or drains any more."""
        self.workload = workload
        self.recorder = Recorder()
        self.tally = Tally(workload.uri_of, workload.num_distinct, timeout_s)
        self.steps: list[Step] = []
        """In order, those of the warm-up included."""
        self.times_s: list[list[float]] = []
        """When the device came to each of a step's marks; empty until the run is over."""
        self.num_warmup = 0
        """Steps of the warm-up; 0 until it is over."""
        self.host: list[Snapshot] = []
        """At the end of the warm-up, and of the last batch."""
        self.num_batches = num_batches
        self.num_expected = max(MIN_WARMUP, num_warmup)
        """Batches of the warm-up, if the queues allow."""
        self._steps = [self.recorder.recorded(stage) for stage in workload.steps]
        self._in_flight: deque[Any] = deque()
        self._inputs = tuple(self.recorder.recorded(stage) for stage in workload.inputs)
        self._pipeline = Pipeline([*(self._inputs if workload.is_prefetched else ()), self._training()])

    def run(self) -> None:
        """Warm-up and measurement, until the device is done. Raises ProfileFault."""
        source = self.recorder.source(self.workload.source())
        with contextlib.closing(self._pipeline.run(source)) as results:
            for step in results:
                self.steps.append(step)
                if not self.num_warmup and self._is_settled():
                    self.num_warmup = len(self.steps)
                    self.host.append(_snapshot())
                elif self.num_warmup and self.num_measured == self.num_batches:
                    self.host.append(_snapshot())
                    break
        self.recorder.watched(self._steps[-1].id, self.workload.device.synchronize)
        self.recorder.wait_until_quiet(_QUIET_S)
        times_s = iter(self.workload.device.times_s([mark for step in self.steps for mark in step.marks]))
        self.times_s = [list(itertools.islice(times_s, len(step.marks))) for step in self.steps]

    def close(self) -> None:
        """End the run; threads that are in a stage are left behind."""
        self._pipeline.close()

    @property
    def num_measured(self) -> int:
        """Batches after the warm-up that came through."""
        if not self.num_warmup:
            return 0
        return sum(step.num_samples > 0 for step in self.steps[self.num_warmup :])

    @property
    def num_dropped(self) -> int:
        """Samples of the warm-up."""
        return sum(step.num_samples for step in self.steps[: self.num_warmup])

    def _training(self) -> Stage:
        """The one stage of the training thread: puts batches together and takes all steps with them."""
        first = self.workload.steps[0]
        has_sizes = self.workload.is_prefetched and self._inputs and self._inputs[-1].size_of is not None
        return Stage(
            id="training",
            name="training",
            resource=first.resource,
            run=self._step,
            regroup=self._batches,
            in_caller=True,
            max_queued=self.workload.max_queued,
            max_queued_bytes=first.max_queued_bytes if has_sizes else None,
        )

    def _batches(self, samples: Iterator[Any]) -> Iterator[tuple[Step, list[Any]]]:
        if not self.workload.is_prefetched:
            samples = map(self._loaded, samples)
        while True:
            step = Step(waits_s=[])
            batch: list[Any] = []
            while len(batch) < self.workload.batch_size:
                start_s = time.perf_counter()
                try:
                    sample = next(samples)
                except StopIteration:
                    reason = f"ended after {self.tally.num_samples} samples; expected no end"
                    raise ProfileFault(SOURCE, reason) from None
                step.waits_s.append((start_s, time.perf_counter()))
                if self.tally.has_sample(sample):
                    batch.append(sample)
            yield step, batch

    def _loaded(self, item: Any) -> Any:
        """A sample that has passed its inputs in this thread."""
        for stage in self._inputs:
            item = stage.apply(item)
        return item

    def _step(self, unit: tuple[Step, list[Any]]) -> Step:
        device = self.workload.device
        step, batch = unit
        result: Any = batch.copy()
        batch.clear()
        step.marks.append(device.mark())
        for stage in self._steps:
            result = stage.apply(result)
            step.marks.append(device.mark())
            if isinstance(result, Failed):
                break
        if self.tally.has_batch(result):
            step.num_samples = self.workload.batch_size
        del result
        self._in_flight.append(step.marks[-1])
        if len(self._in_flight) > MAX_AHEAD:
            earlier = self._in_flight.popleft()
            self.recorder.watched(self._steps[-1].id, lambda: device.wait(earlier))
        step.end_s = time.perf_counter()
        step.counts = self._counts()
        return step

    def _is_settled(self) -> bool:
        """Whether no queue fills or drains any more: each is full, or its stage waits for it.

        A queue that does neither is waited for as many batches as all of them hold.
        """
        if len(self.steps) < self.num_expected:
            return False
        if not self.workload.is_prefetched:
            return True
        inputs = self.workload.inputs
        num_held = self.workload.max_queued + sum(each.num_workers + each.max_queued for each in inputs[1:])
        if len(self.steps) >= self.num_expected + math.ceil(num_held / self.workload.batch_size):
            return True
        *queues, last_queue = (stats.queue for stats in self._pipeline.stats().stages)
        *are_refilled, is_refilled = self._are_refilled()
        for stage, queue, refilled in zip(inputs, queues, are_refilled, strict=True):
            is_full = queue.items >= stage.max_queued and refilled
            if not is_full and queue.items > stage.num_workers:
                return False
        return (last_queue.items >= self.workload.max_queued and is_refilled) or self._is_waiting()

    def _are_refilled(self) -> Iterator[bool]:
        """For each queue: did as many items come during the last batch as were taken? A stock must not count."""
        came = [now - before for before, now in zip(self.steps[-2].counts, self.steps[-1].counts, strict=True)]
        return (before >= after for before, after in itertools.pairwise([*came, self.workload.batch_size]))

    def _counts(self) -> list[int]:
        calls = self.recorder.calls
        return [self.recorder.num_items, *(len(calls[stage.id]) for stage in self.workload.inputs)]

    def _is_waiting(self) -> bool:
        """Whether the training thread had to wait for its last batch."""
        before, last = self.steps[-2:]
        waited_s = sum(end_s - start_s for start_s, end_s in last.waits_s)
        return waited_s > _WAITS * (last.end_s - before.end_s)


def _snapshot() -> Snapshot:
    return Snapshot(at_s=time.perf_counter(), core_s=core_seconds())
