"""Telling how far a run of one or several ablations is, which cell is at work, and how much time is left."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fovcache.builder.progress import OnProgress, Progress

from .events import AtWork
from .pace import Pace
from .task import Task

logger = logging.getLogger(__name__)


class Teller:
    """Of all tasks of a run."""

    def __init__(self, tasks: Sequence[Task], on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._names = {id(task): f"{task.config.name}: " if len(tasks) > 1 else "" for task in tasks}
        self._total = sum(len(task.cells) for task in tasks)
        self._num_done = 0
        self._stage = "ablate"
        self._pace = Pace(sum(_cost(task, range(len(task.cells))) for task in tasks))

    def reused(self, task: Task, places: Sequence[int]) -> None:
        """Cells that an earlier run finished."""
        self._pace.skip(_cost(task, places))
        self._num_done += len(places)
        self._say()

    def done(self, task: Task, places: Sequence[int]) -> None:
        """Cells that were run now, with a trial or none."""
        self._pace.done(_cost(task, places))
        self._num_done += len(places)
        self._say()

    def at_work(self, task: Task, event: AtWork) -> None:
        """What is being done, and of which cell."""
        self._stage = event.stage
        cell = f"{self._names[id(task)]}{task.cells[event.cell]}"
        logger.info("%d of %d trials; %s: %s", self._num_done, self._total, self._stage, cell)
        self._say(cell)

    def _say(self, note: str = "") -> None:
        left_s = self._pace.left_s
        told = Progress(stage=self._stage, done=self._num_done, total=self._total, note=note, left_s=left_s)
        self._on_progress(told)


def _cost(task: Task, places: Sequence[int]) -> int:
    return sum(task.cost(index) for index in places)
