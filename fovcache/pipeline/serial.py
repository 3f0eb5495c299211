"""The stages of a pipeline one at a time, in the caller's thread: what each costs when nothing runs beside it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from .stage import Failed, Stage, check_stages
from .stats import BUSY, IDLE, RunStats, WorkerClock, run_stats


class SerialPipeline:
    """Runs like a Pipeline, with the same results in the same order, and nothing overlaps.

    A stage is busy or, while others and the consumer are, idle: what the wall time has more than all busy times
    belongs to the source, the consumer, and this class. There is no queue, and no timeout.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._stages = tuple(stages)
        check_stages(self._stages)
        self._started = self._ended = 0.0
        self._clocks: dict[str, list[WorkerClock]] = {}
        self._final: RunStats | None = RunStats()

    def run(self, source: Iterable[Any]) -> Generator[Any]:
        """The last stage's results."""
        self._started = time.perf_counter()
        self._clocks = {stage.id: [WorkerClock(self._started)] for stage in self._stages}
        self._final = None
        try:
            yield from _chain(self._stages, source, [clocks[0] for clocks in self._clocks.values()])
        finally:
            self._final = self.stats()

    def stats(self) -> RunStats:
        """Of the run so far; after it, of the whole run."""
        return self._final or run_stats(self._stages, self._clocks, self._started)


def serial(stages: Iterable[Stage], source: Iterable[Any]) -> tuple[list[Any], RunStats]:
    """All results of the stages run one at a time, and where the time went."""
    pipeline = SerialPipeline(stages)
    return list(pipeline.run(source)), pipeline.stats()


def _chain(stages: Sequence[Stage], source: Iterable[Any], clocks: Sequence[WorkerClock]) -> Iterator[Any]:
    items = iter(source)
    for stage, clock in zip(stages, clocks, strict=True):
        items = _results(stage, items, clock)
    return items


def _results(stage: Stage, items: Iterator[Any], clock: WorkerClock) -> Iterator[Any]:
    clock.enter(BUSY)
    units = _while_idle(items, clock)
    for unit in units if stage.regroup is None else stage.regroup(units):
        result = stage.apply(unit)
        if not isinstance(unit, Failed):
            clock.num_run += 1
            clock.num_failed += isinstance(result, Failed)
        clock.enter(IDLE)
        yield result
        clock.enter(BUSY)
    clock.enter(IDLE)


def _while_idle(items: Iterator[Any], clock: WorkerClock) -> Iterator[Any]:
    """The items, the time until each counted as idle."""
    while True:
        clock.enter(IDLE)
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            clock.enter(BUSY)
        yield item
