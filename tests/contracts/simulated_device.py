"""A device that works off what it is given in order, in a thread, while the thread that gave it goes on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from injected_costs import Call


@dataclass
class Mark:
    """A point in the queue."""

    is_reached: threading.Event = field(default_factory=threading.Event)
    time_s: float = 0.0


class SimulatedDevice:
    name = "simulated device"
    type = "simulated"
    is_async = True

    def __init__(self) -> None:
        self.work: list[Call] = []
        """What it did: the truth."""
        self._queue: queue.SimpleQueue[float | Mark | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="simulated-device", daemon=True).start()

    def give(self, cost_s: float) -> None:
        """Work for it. Returns at once."""
        self._queue.put(cost_s)

    def mark(self) -> Mark:
        mark = Mark()
        self._queue.put(mark)
        return mark

    def wait(self, mark: Mark) -> None:
        mark.is_reached.wait()

    def synchronize(self) -> None:
        self.wait(self.mark())

    def times_s(self, marks: Sequence[Mark]) -> list[float]:
        self.synchronize()
        return [mark.time_s for mark in marks]

    def close(self) -> None:
        """End its thread."""
        self._queue.put(None)

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            if isinstance(given, Mark):
                given.time_s = time.perf_counter()
                given.is_reached.set()
            else:
                start_s = time.perf_counter()
                time.sleep(given)
                self.work.append(Call(start_s, time.perf_counter()))
