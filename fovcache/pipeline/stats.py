"""Where the workers' time went.

At each moment a worker is busy (running its stage), starved (waiting for an item), blocked (waiting to hand one
over) or idle (before its first item and after its last), so that the four add up to the run's wall time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .channel import Occupancy
from .stage import Stage

IDLE, STARVED, BUSY, BLOCKED = range(4)

Reading: TypeAlias = tuple[int, float, list[float]]
"""What a worker does, since when, and the seconds spent before that by IDLE, STARVED, BUSY and BLOCKED."""


class WorkerClock:
    """One worker's time. Its worker alone writes; anybody reads at any time, without a lock."""

    def __init__(self, started: float) -> None:
        self._reading: Reading = (IDLE, started, [0.0] * 4)  # replaced, never changed
        self.num_run = 0
        self.num_failed = 0

    def enter(self, state: int, *, was: int | None = None) -> None:
        """From now on do `state`. `was` corrects what was done until now."""
        before, since, spent = self._reading
        spent = spent.copy()
        now = time.perf_counter()
        spent[before if was is None else was] += now - since
        self._reading = (state, now, spent)

    def leave(self) -> None:
        """Be idle from now on; if it waited for an item, none came."""
        self.enter(IDLE, was=IDLE if self._reading[0] == STARVED else None)

    def read(self) -> Reading:
        """What `worker_stats` takes; read first, then take the time."""
        return self._reading


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One worker's time in seconds; the four add up to the run's wall time."""

    busy_s: float
    """In the stage's `run`, and in its `regroup`."""
    starved_s: float
    """Waiting for an item."""
    blocked_s: float
    """Waiting for room in the next queue, or for the consumer."""
    idle_s: float
    """Before its first item and after its last."""


def worker_stats(reading: Reading, now: float) -> WorkerStats:
    """A worker's time until `now`, which must be later than the reading."""
    state, since, spent = reading
    spent = spent.copy()
    spent[state] += now - since
    return WorkerStats(busy_s=spent[BUSY], starved_s=spent[STARVED], blocked_s=spent[BLOCKED], idle_s=spent[IDLE])


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStats:
    """One stage's time, of all its workers together, and the queue before it."""

    id: str
    """As the stage's."""
    name: str
    """As the stage's."""
    resource: str
    """As the stage's."""
    workers: tuple[WorkerStats, ...]
    """One for each worker. A thread that was left behind counts until then; its replacement goes on from there."""
    n: int
    """Items (units, for a stage that regroups) that it ran, failed ones included."""
    num_failed: int
    """Items that failed in it."""
    num_stuck: int
    """Threads that were left behind in it."""
    queue: Occupancy
    """What waits before it."""

    @property
    def busy_s(self) -> float:
        """Seconds of work, of all workers together."""
        return sum(worker.busy_s for worker in self.workers)

    @property
    def starved_s(self) -> float:
        """Seconds of waiting for an item, of all workers together."""
        return sum(worker.starved_s for worker in self.workers)

    @property
    def blocked_s(self) -> float:
        """Seconds of waiting to hand an item over, of all workers together."""
        return sum(worker.blocked_s for worker in self.workers)

    @property
    def idle_s(self) -> float:
        """Seconds before the first and after the last item, of all workers together."""
        return sum(worker.idle_s for worker in self.workers)

    @property
    def stall_s(self) -> float:
        """Seconds of waiting between the first and the last item."""
        return self.starved_s + self.blocked_s

    @property
    def busy_share(self) -> float:
        """The part of its workers' time in which they worked, 0 to 1."""
        total_s = self.busy_s + self.stall_s + self.idle_s
        return self.busy_s / total_s if total_s > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """For reports; `total_s` is the work, as in a profile."""
        return {
            "id": self.id,
            "name": self.name,
            "resource": self.resource,
            "workers": len(self.workers),
            "n": self.n,
            "failed": self.num_failed,
            "stuck": self.num_stuck,
            "total_s": self.busy_s,
            "busy_s": self.busy_s,
            "starved_s": self.starved_s,
            "blocked_s": self.blocked_s,
            "idle_s": self.idle_s,
            "busy": self.busy_share,
            "peak_queued": self.queue.peak_items,
            "peak_queued_bytes": self.queue.peak_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStats:
    """A run so far, or a finished one."""

    wall_s: float = 0.0
    """Since it began; each worker's times add up to it."""
    stages: tuple[StageStats, ...] = ()
    """In pipeline order; empty before the first run."""


def run_stats(
    stages: Sequence[Stage],
    clocks: Mapping[str, Sequence[WorkerClock]],
    started: float,
    *,
    queues: Mapping[str, Occupancy] | None = None,
    num_stuck: Mapping[str, int] | None = None,
) -> RunStats:
    """What the clocks (by stage id) show now. Without `queues` there are none."""
    readings = {stage.id: [clock.read() for clock in clocks[stage.id]] for stage in stages}
    now = time.perf_counter()
    return RunStats(
        wall_s=now - started,
        stages=tuple(
            StageStats(
                id=stage.id,
                name=stage.name,
                resource=stage.resource,
                workers=tuple(worker_stats(reading, now) for reading in readings[stage.id]),
                n=sum(clock.num_run for clock in clocks[stage.id]),
                num_failed=sum(clock.num_failed for clock in clocks[stage.id]),
                num_stuck=(num_stuck or {}).get(stage.id, 0),
                queue=(queues or {}).get(stage.id, Occupancy()),
            )
            for stage in stages
        ),
    )
