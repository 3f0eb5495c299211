"""A worker: takes items from one channel, runs its stage on them, and puts the results into the next."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from ..errors import SampleError
from .channel import Channel, Entry
from .stage import Failed, Stage
from .stats import BLOCKED, BUSY, IDLE, STARVED, WorkerClock


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """One call of a stage's `run`, as the watchdog sees it."""

    entry: Entry
    """What it runs on."""
    due: float
    """When it must be done, on `time.perf_counter`."""


class Worker:
    """One of a stage's workers. Threads come and go: one that is stuck is left behind, and the next goes on.

    Whichever thread has `_job` has the worker; a thread that finds another job there touches nothing any more.
    """

    def __init__(self, stage: Stage, source: Channel, target: Channel | None, started: float) -> None:
        """`target` is None for a last stage that runs in the caller's thread."""
        self.stage = stage
        self.clock = WorkerClock(started)
        self.units = self._units()
        self._source = source
        self._target = target
        self._num_units = 0
        self._lock = threading.Lock()
        self._job: Job | None = None

    def work(self, stuck: Job | None = None) -> None:
        """A thread's life. The next one begins with what the last one was `stuck` on. Raises Stopped."""
        try:
            if stuck is not None:
                self.hand_over(self._too_late(stuck))
            for entry in self.units:
                result = self.run(entry)
                if result is None:
                    return
                self.hand_over(result)
                del entry, result  # not kept alive while waiting for the next
            self.end()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Stop working, wherever it is, and let the stage's `regroup` clean up."""
        self.clock.leave()
        self.units.close()

    def run(self, entry: Entry) -> Entry | None:
        """The stage's result; None for a thread that was left behind meanwhile."""
        number, item, size_bytes = entry
        if isinstance(item, Failed):
            return entry
        if self.stage.timeout_s is None:
            result = self.stage.apply(item)
        else:
            self._job = job = Job(entry=entry, due=time.perf_counter() + self.stage.timeout_s)
            try:
                result = self.stage.apply(item)
            except BaseException:
                if self._let_go(job):
                    raise
                return None
            if not self._let_go(job):
                return None
        self.clock.num_run += 1
        if isinstance(result, Failed):
            self.clock.num_failed += 1
            return number, result, size_bytes
        return number, result, 0 if self.stage.size_of is None else self.stage.size_of(result)

    def hand_over(self, entry: Entry) -> None:
        """Put a result into the next channel; without one, it is with the consumer from now on. Raises Stopped."""
        self.clock.enter(BLOCKED)
        if self._target is not None:
            self._target.put(*entry)

    def end(self) -> None:
        """There was no further item."""
        self.clock.enter(IDLE)
        if self._target is not None:
            self._target.close(self._num_units)

    def due(self) -> float | None:
        """When its present job must be done."""
        job = self._job
        return None if job is None else job.due

    def take_away(self, now: float) -> Job | None:
        """Take the worker from its thread, if that is stuck; with the returned job another thread is to `work`."""
        with self._lock:
            job = self._job
            if job is None or job.due > now:
                return None
            self._job = None
        self.clock.num_run += 1
        self.clock.num_failed += 1
        return job

    def _too_late(self, job: Job) -> Entry:
        number, item, size_bytes = job.entry
        reason = f"took longer than {self.stage.timeout_s:g} s"
        return number, Failed(error=SampleError(self.stage.id, reason, permanent=False), item=item), size_bytes

    def _let_go(self, job: Job) -> bool:
        with self._lock:
            if self._job is not job:
                return False
            self._job = None
            return True

    def _units(self) -> Generator[Entry]:
        """What to run on, in order; the clock says busy whenever one is out."""
        if self.stage.regroup is None:
            yield from self._items()
            self._num_units = self._source.num_items
            return
        for unit in self.stage.regroup(map(operator.itemgetter(1), self._items())):
            yield self._num_units, unit, 0
            self.clock.enter(BUSY)  # one item may make several units
            self._num_units += 1
            del unit

    def _items(self) -> Iterator[Entry]:
        waiting = IDLE
        while True:
            self.clock.enter(waiting)
            entry = self._source.get()
            if entry is None:
                self.clock.enter(BUSY, was=IDLE)
                return
            self.clock.enter(BUSY)
            yield entry
            del entry
            waiting = STARVED
