"""The overlapped pipeline: every stage works at the same time, on different items."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any

from ..errors import EnvironmentFailure, UsageError
from .channel import Channel, Stopped
from .stage import Stage, check_stages
from .stats import RunStats, WorkerClock, run_stats
from .watchdog import Watchdog
from .worker import Job, Worker

logger = logging.getLogger(__name__)

JOIN_S = 1.0
"""Threads that have not ended this long after the end of a run are left behind; they are daemons."""
MIN_STUCK = 8
"""A stage may leave this many stuck threads behind, or four for each of its workers, before the run ends."""


class Pipeline:
    """Stages that run overlapped, joined by bounded queues; items never change their order.

        with Pipeline([fetch, decode, encode, write]) as pipeline:
            for result in pipeline.run(samples):
                ...

    A SampleError makes one item a Failed. The first other error, of a stage or of the source, ends the run and is
    raised where the results are iterated; so does whatever is raised there, and leaving the loop.
    """

    def __init__(self, stages: Iterable[Stage], *, max_results: int = 16) -> None:
        """`max_results` may wait for the consumer. They are not bounded where a stage before the last runs in the
        caller's thread, which cannot take them at the same time; then only what is between the two can wait."""
        self._stages = tuple(stages)
        check_stages(self._stages)
        if max_results < 1:
            raise UsageError(f"max_results is {max_results}; expected at least 1")
        self._max_results = max_results
        self._run: _Run | None = None
        self._final = RunStats()
        self.num_left_behind = 0
        """Threads of the last run that had not ended when it had; they may hold on to files and memory."""

    def run(self, source: Iterable[Any]) -> Generator[Any]:
        """The last stage's results, in the source's order. The source is read ahead, in a thread of its own."""
        if self._run is not None:
            raise UsageError("the pipeline is running; expected one run at a time")
        self._run = run = _Run(self._stages, self._max_results)
        try:
            yield from run.results(source)
        finally:
            self._finish(run)
        run.raise_first_error()

    def stats(self) -> RunStats:
        """Of the run so far; after it, of the whole run. From any thread, at any time."""
        run = self._run
        return self._final if run is None else run.stats()

    def close(self) -> None:
        """End the run, if there is one; its iterator then has no further results."""
        if self._run is not None:
            self._finish(self._run)

    def _finish(self, run: _Run) -> None:
        run.stop()
        if self._run is run:
            self.num_left_behind = run.join()
            self._final = run.stats()
            self._run = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Run:
    """One run: its channels, its workers and their threads."""

    def __init__(self, stages: tuple[Stage, ...], max_results: int) -> None:
        self._stages = stages
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._is_stopped = False
        self._num_stuck = dict.fromkeys((stage.id for stage in stages), 0)
        self._threads: dict[object, threading.Thread] = {}  # by what they run; not those left behind
        self._lost: list[threading.Thread] = []
        self._channels = [
            Channel(max_items=stage.max_queued, max_bytes=stage.max_queued_bytes, in_step=stage.in_step)
            for stage in stages
        ]
        is_last_here = stages[-1].in_caller
        is_here = any(stage.in_caller for stage in stages)
        self._results = None if is_last_here else Channel(max_items=None if is_here else max_results)
        targets = [*self._channels[1:], self._results]
        self._workers = [
            Worker(stage, source, target, self._started)
            for stage, source, target in zip(stages, self._channels, targets, strict=True)
            for _ in range(stage.num_workers)
        ]
        self._watchdog = Watchdog(self._workers, self._replace)

    def results(self, source: Iterable[Any]) -> Generator[Any]:
        """Start the threads, work in this one if a stage is to, and hand out the results."""
        try:
            self._start("source", "source", lambda: self._feed(source))
            for number, worker in enumerate(self._workers):
                if not worker.stage.in_caller:
                    self._start(worker, f"{worker.stage.id}-{number}", worker.work, worker.stage.niceness)
            if self._watchdog.is_needed:
                self._start(self._watchdog, "watchdog", self._watchdog.watch)
            for worker in self._workers:
                if worker.stage.in_caller:
                    yield from self._work_here(worker)
            yield from self._finished(wait=True)
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - raised by `raise_first_error`, unless it is a consequence of one
            self.stop(error)
        finally:
            self.stop()
            for worker in self._workers:
                if worker.stage.in_caller:
                    worker.leave()

    def _work_here(self, worker: Worker) -> Generator[Any]:
        for unit in worker.units:
            entry = worker.run(unit)
            assert entry is not None
            del unit  # not kept alive while the consumer works, or the next is waited for
            worker.hand_over(entry)
            if self._results is None:
                yield entry[1]
            del entry
            yield from self._finished(wait=False)
        worker.end()

    def _finished(self, *, wait: bool) -> Generator[Any]:
        """The results that other threads have ready, or all."""
        while self._results is not None and (entry := self._results.get(wait=wait)) is not None:
            yield entry[1]
            del entry

    def _feed(self, source: Iterable[Any]) -> None:
        num_items = 0
        for item in source:
            self._channels[0].put(num_items, item)
            num_items += 1
        self._channels[0].close(num_items)

    def _start(self, key: object, name: str, target: Callable[[], None], niceness: int = 0) -> None:
        def live() -> None:
            try:
                _give_way(niceness)
                target()
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - `raise_first_error` raises it in the caller
                self.stop(error)

        thread = threading.Thread(target=live, name=f"fovcache-{name}", daemon=True)
        self._threads[key] = thread
        thread.start()

    def _replace(self, worker: Worker, job: Job) -> None:
        """Leave a stuck thread behind: it cannot be killed."""
        stage = worker.stage
        with self._lock:
            self._lost.append(self._threads.pop(worker))
            self._num_stuck[stage.id] += 1
        if self._num_stuck[stage.id] > max(MIN_STUCK, 4 * stage.num_workers):
            raise EnvironmentFailure(
                f"{self._num_stuck[stage.id]} threads of {stage.name} are stuck, each for more than "
                f"{stage.timeout_s:g} s: a disk or a server may hang, or the limit may be too low"
            )
        logger.warning("%s took longer than %g s on a sample; its thread is left behind", stage.name, stage.timeout_s)
        self._start(worker, f"{stage.id}-{self._workers.index(worker)}", lambda: worker.work(job), stage.niceness)

    def stop(self, error: BaseException | None = None) -> None:
        """End the run, for the first `error` if there is one; threads stop after their present item."""
        with self._lock:
            if not self._is_stopped:
                self._is_stopped = True
                self._error = error
        for channel in self._channels:
            channel.stop()
        if self._results is not None:
            self._results.stop()
        self._watchdog.stop()

    def join(self) -> int:
        """Wait a moment for the threads to end; how many have not."""
        deadline = time.monotonic() + JOIN_S
        for thread in list(self._threads.values()):
            if thread.is_alive():  # it may not have started, if a signal came in between
                thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in (*self._threads.values(), *self._lost))

    def raise_first_error(self) -> None:
        """Raise what ended the run, with the traceback that it came with."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def stats(self) -> RunStats:
        """Where the time went until now."""
        clocks: dict[str, list[WorkerClock]] = {stage.id: [] for stage in self._stages}
        for worker in self._workers:
            clocks[worker.stage.id].append(worker.clock)
        queues = {stage.id: channel.occupancy() for stage, channel in zip(self._stages, self._channels, strict=True)}
        return run_stats(self._stages, clocks, self._started, queues=queues, num_stuck=self._num_stuck)


def _give_way(niceness: int) -> None:
    """Lower this thread's priority; on Linux alone threads have one each."""
    if niceness and sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it, and then all are equal
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
