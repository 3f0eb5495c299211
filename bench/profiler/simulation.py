"""A small deterministic simulation of an overlapped pipeline: what bounded queues and uneven costs take off the bound.

The plain bound, Σ demand ÷ capacity, is right where costs are even. Where they vary and two stages are about as fast as
each other, workers wait for their turn (items leave a queue in order) and for room, and the bound promises up to a
third too much. The simulated queues admit and release as `fovcache.pipeline.channel` does; the tests compare the two.

Left out: the interpreter's lock, memory bandwidth, clocks that fall as more cores work, and the scheduler's own ways:
when more work is at hand than there are cores, all of it slows down alike.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fovcache.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A stage as the simulation sees it."""

    durations_s: tuple[float, ...]
    """Of successive units when nothing runs beside them, seconds; repeated from the start after the last."""
    cores: float = 0.0
    """Cores that a unit at work keeps busy, 0 for one that only waits."""
    num_workers: int = 1
    """Units at a time."""
    max_queued: int = 16
    """Items that may wait before it."""

    def __post_init__(self) -> None:
        if not self.durations_s or not min(self.durations_s) >= 0 or not self.cores >= 0:
            raise UsageError(
                f"{len(self.durations_s)} durations, the shortest {min(self.durations_s, default=0)} s, {self.cores} "
                "cores; expected at least one duration, and nothing below 0"
            )
        if self.num_workers < 1 or self.max_queued < 1:
            raise UsageError(f"{self.num_workers} workers behind {self.max_queued} items; expected at least 1 of each")


def simulated_s_per_sample(
    inputs: Sequence[Server],
    step: Server,
    *,
    batch_size: int,
    num_batches: int,
    num_warm_up: int,
    num_cores: float,
    max_ahead: int = 0,
) -> float:
    """Wall seconds a sample in the steady state: of `num_batches` after `num_warm_up`.

    `inputs` take samples, `step` takes `batch_size` of them at a time. `step.max_queued` samples may wait for it, and
    up to `max_ahead` further batches that were taken while it is at work: 0 for a device that the training thread
    waits for.
    """
    if min(num_batches, num_warm_up, batch_size) < 1 or not num_cores > 0 or max_ahead < 0:
        raise UsageError(
            f"{num_warm_up} + {num_batches} batches of {batch_size} on {num_cores} cores, {max_ahead} ahead; expected "
            "at least one each, of at least 1, more than 0 cores, and at least 0 ahead"
        )
    ends_s = _Simulation((*inputs, step), batch_size, num_warm_up + num_batches, num_cores, max_ahead).run()
    return (ends_s[-1] - ends_s[num_warm_up - 1]) / (num_batches * batch_size)


class _Queue:
    """Numbered items that leave in order; those that find no room are parked, as in a Channel."""

    def __init__(self, max_items: int | None) -> None:
        self.max_items = max_items
        self.next = 0
        self._held: set[int] = set()
        self._parked: list[int] = []

    @property
    def is_ready(self) -> bool:
        return self.next in self._held

    def put(self, number: int) -> bool:
        """Add an item; False when it has to wait outside."""
        if not self._admits(number):
            heapq.heappush(self._parked, number)
            return False
        self._held.add(number)
        return True

    def take(self) -> tuple[int, int]:
        """The next item, and how many that were parked came in for it."""
        number, num_admitted = self.next, 0
        self._held.remove(number)
        self.next += 1
        while self._parked and self._admits(self._parked[0]):
            self._held.add(heapq.heappop(self._parked))
            num_admitted += 1
        return number, num_admitted

    def _admits(self, number: int) -> bool:
        return number == self.next or self.max_items is None or len(self._held) < self.max_items


class _Simulation:
    """Events are units that end. Each stage has a clock of its own, which slows down when cores are short."""

    def __init__(
        self, servers: Sequence[Server], batch_size: int, num_batches: int, num_cores: float, max_ahead: int
    ) -> None:
        self._servers = servers
        self._step = len(servers) - 1
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._num_cores = num_cores
        self._max_ahead = max_ahead
        self._queues = [_Queue(None), *(_Queue(server.max_queued) for server in servers[1:])]
        if not self._step:
            self._queues[0].max_items = None
        for number in range(batch_size * num_batches):
            self._queues[0].put(number)
        self._num_idle = [server.num_workers for server in servers]
        self._at_work: list[list[tuple[float, int]]] = [[] for _ in servers]  # by when they end, on the stage's clock
        self._clocks = [0.0] * len(servers)
        self._rates: dict[tuple[int, ...], list[float]] = {}
        self._num_taken = 0  # of the batch that is being put together
        self._num_complete = 0  # batches that wait for the step
        self._num_begun = 0

    def run(self) -> list[float]:
        """When each batch ended, seconds."""
        now_s, ends_s = 0.0, []
        self._begin_all()
        while any(self._at_work):
            rates = self._rates_now()
            wait_s, stage = min(
                ((units[0][0] - self._clocks[stage]) / rates[stage], stage)
                for stage, units in enumerate(self._at_work)
                if units
            )
            wait_s = max(0.0, wait_s)
            now_s += wait_s
            for each, rate in enumerate(rates):
                self._clocks[each] += wait_s * rate
            _, number = heapq.heappop(self._at_work[stage])
            if stage == self._step:
                ends_s.append(now_s)
                self._num_idle[stage] += 1
            elif self._queues[stage + 1].put(number):
                self._num_idle[stage] += 1
            self._begin_all()
        return ends_s

    def _begin_all(self) -> None:
        """Begin whatever can begin now; from the last stage, so that what makes room comes first."""
        while any(self._begin(stage) for stage in range(self._step, -1, -1)):
            pass

    def _begin(self, stage: int) -> bool:
        queue = self._queues[stage]
        if stage == self._step:
            if self._num_complete and self._num_idle[stage]:
                self._num_complete -= 1
                self._start(stage, self._num_begun)
                self._num_begun += 1
                return True
            is_free = self._num_idle[stage] > 0 or self._num_complete < self._max_ahead
        else:
            is_free = self._num_idle[stage] > 0
        if not is_free or not queue.is_ready:
            return False
        number, num_admitted = queue.take()
        if stage:
            self._num_idle[stage - 1] += num_admitted
        if stage < self._step:
            self._start(stage, number)
        else:
            self._num_taken += 1
            if self._num_taken == self._batch_size:
                self._num_taken, self._num_complete = 0, self._num_complete + 1
        return True

    def _start(self, stage: int, number: int) -> None:
        durations_s = self._servers[stage].durations_s
        self._num_idle[stage] -= 1
        heapq.heappush(self._at_work[stage], (self._clocks[stage] + durations_s[number % len(durations_s)], number))

    def _rates_now(self) -> list[float]:
        counts = tuple(map(len, self._at_work))
        if counts not in self._rates:
            cores = [server.cores for server in self._servers]
            slowdown = core_slowdown(list(zip(cores, counts, strict=True)), self._num_cores)
            self._rates[counts] = [1 / _slowed(each, slowdown) for each in cores]
        return self._rates[counts]


def core_slowdown(at_work: Sequence[tuple[float, int]], num_cores: float) -> float:
    """How much slower than alone a core's work goes, at least 1.

    `at_work` are (cores that a unit keeps busy, units). The part of a unit in which it only waits is not slowed.
    """

    def used(slowdown: float) -> float:
        return sum(cores * count / _slowed(cores, slowdown) for cores, count in at_work)

    low, high = 1.0, sum(max(cores, 1.0) * count for cores, count in at_work if cores) / num_cores
    if high <= 1 or used(1.0) <= num_cores:
        return 1.0
    for _ in itertools.repeat(None, 40):
        middle = (low + high) / 2
        low, high = (middle, high) if used(middle) > num_cores else (low, middle)
    return high


def _slowed(cores: float, slowdown: float) -> float:
    """How much longer than alone a unit takes."""
    share = min(cores, 1.0)
    return 1 - share + share * slowdown
