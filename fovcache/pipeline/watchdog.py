"""Finds workers that are stuck in their stage, in time and without polling."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from .worker import Job, Worker


class Watchdog:
    """Watches the workers of all stages that have a timeout."""

    def __init__(self, workers: Sequence[Worker], on_stuck: Callable[[Worker, Job], None]) -> None:
        """`on_stuck` is called in the watchdog's thread, with a worker that has been taken away from its thread."""
        self._workers = [worker for worker in workers if worker.stage.timeout_s is not None]
        self._on_stuck = on_stuck
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def is_needed(self) -> bool:
        """Whether any stage has a timeout."""
        return bool(self._workers)

    def watch(self) -> None:
        """The life of its thread, until `stop`."""
        while not self._is_over_within(self._rest_s()):
            now = time.perf_counter()
            for worker in self._workers:
                job = worker.take_away(now)
                if job is not None:
                    self._on_stuck(worker, job)

    def stop(self) -> None:
        """End `watch`."""
        self._over.put(None)

    def _is_over_within(self, timeout_s: float) -> bool:
        try:
            self._over.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True

    def _rest_s(self) -> float:
        """Until the first job can be late: one that runs, or one that begins now, unseen."""
        now = time.perf_counter()
        dues = [worker.due() or now + (worker.stage.timeout_s or 0.0) for worker in self._workers]
        return min(max(0.0, min(dues) - now), threading.TIMEOUT_MAX)
