"""The runs of a suite at work: what they tell, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fovcache.builder.progress import OnProgress, Progress
from fovcache.builder.request import available_cores

from ..result import FAILED, Run
from .run_folder import dead_run
from .run_processes import Asked, Ended, OnPlan, RunProcesses
from .suite_config import Cell

logger = logging.getLogger(__name__)


class SuiteWork:
    """Runs at work, and what becomes of them."""

    def __init__(self, asked: Sequence[Asked], jobs: int, on_progress: OnProgress, on_plan: OnPlan) -> None:
        self.errors: list[Exception] = []
        self.ended: dict[str, Run] = {}
        """What runs came to, by their places."""
        self._asked = asked
        self._is_stopping = False
        self._on_progress = on_progress
        self._told: dict[str, int] = {}
        settings = [each.cell.config.train for each in asked]
        self._total = sum(each.num_steps * each.batch_size for each in settings)
        self._processes = RunProcesses(
            jobs=jobs, num_threads=num_threads(jobs), on_progress=self._tell, on_plan=on_plan
        )

    def do(self) -> None:
        """All of them."""
        for ended in self._processes.run(self._asked):
            self._note(ended)

    def stop(self) -> None:
        """Those at work save and end."""
        self._is_stopping = True
        for ended in self._processes.stop():
            self._note(ended)

    def _note(self, ended: Ended) -> None:
        cell, folder = ended.asked.cell, ended.asked.folder
        run = ended.run
        if ended.error is not None:
            self.errors.append(ended.error)
        if run is None:
            said = ended.how if ended.error is None else str(ended.error)
            run = dead_run(folder, cell, said, is_stopped=self._is_stopping)
        self.ended[cell.place] = run
        if run.state == FAILED:
            logger.warning("%s failed: %s", cell, run.reason)
        settings = cell.config.train
        self._show(cell, settings.num_steps * settings.batch_size, "")

    def _tell(self, cell: Cell, progress: Progress) -> None:
        self._show(cell, progress.done, f"{cell}: {progress.note or progress.stage}")

    def _show(self, cell: Cell, num_done: int, note: str) -> None:
        self._told[cell.place] = num_done
        if not self._is_stopping:
            told = Progress(stage="train", done=sum(self._told.values()), total=self._total, note=note)
            self._on_progress(told)


def num_threads(jobs: int) -> int:
    """Threads of each run where so many share what this process may use."""
    import torch

    return max(1, min(torch.get_num_threads(), available_cores()) // jobs)
