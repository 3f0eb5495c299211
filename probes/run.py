"""Running an ablation: what is not finished yet, batch after batch, and what all of it came to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fovcache.builder.numerics import numerics_id
from fovcache.builder.progress import OnProgress, silent
from fovcache.builder.request import pick_device
from fovcache.errors import UsageError

from .config import AblationConfig
from .grid import Cell
from .result import Ablation, Trial
from .running.assembly import assemble
from .running.batches import Batch, banks, side_by_side
from .running.events import AtWork, Done, Event
from .running.memory import Room, bank_bytes, check_memory, fitted_bytes
from .running.result_folder import ResultFolder, open_folder
from .running.task import Task, open_task
from .running.teller import Teller
from .running.work import Executor, InProcess
from .tables.page import PAGE_FILE, page
from .tables.trials_table import TABLE_FILE, trials_parquet


def run_ablation(
    config: AblationConfig,
    out: Path,
    on_progress: OnProgress = silent,
    *,
    environment: Mapping[str, Any] | None = None,
    isolate: bool = False,
    timeout_s: float | None = None,
) -> Ablation:
    """Run what the folder `out` lacks of an ablation, write there what it came to, and return it.

    A cell that raises is in `failures`, and the others go on. With `isolate` cells run in another process, and one
    that ends it, or that nothing is heard of for `timeout_s`, is in `failures` too. `environment` says what it ran
    on; None for what the library knows of that. Raises UsageError and its kin for what cannot be done as asked, before
    anything is computed; DamageError; EnvironmentFailure when the machine fails.
    """
    if config.arms:
        raise UsageError(f"this configuration has arms ({', '.join(config.arms)}): `run_suite` runs them")
    with executor(isolate=isolate, timeout_s=timeout_s) as work:
        task = open_task(config)
        room = check_memory(task, pick_device(config.device))
        return run_task(task, room, out, work, Teller([task], on_progress), environment)


@contextlib.contextmanager
def executor(*, isolate: bool, timeout_s: float | None) -> Iterator[Executor]:
    """What runs cells. Raises UsageError for a limit that nothing would watch."""
    if isolate:
        from .running.isolate import Isolated

        with Isolated(timeout_s) as isolated:
            yield isolated
        return
    if timeout_s is not None:
        raise UsageError("a time limit needs a process that can be ended: isolate, or set none")
    yield InProcess()


def run_task(
    task: Task, room: Room, out: Path, work: Executor, teller: Teller, environment: Mapping[str, Any] | None
) -> Ablation:
    """As `run_ablation`, of a task that is opened and known to fit."""
    with open_folder(out) as folder:
        run = _Run(task, room, folder, teller)
        with contextlib.closing(work.run(task, room, out, run.batches())) as events:
            for event in events:
                run.take(event)
        found = assemble(task, out, run.trials, run.reasons, environment or numerics_id(room.device, {}))
        folder.write_result(found, {PAGE_FILE: page(found).encode(), TABLE_FILE: trials_parquet(found.trials)})
    return found


class _Run:
    def __init__(self, task: Task, room: Room, folder: ResultFolder, teller: Teller) -> None:
        self._task = task
        self._room = room
        self._folder = folder
        self._teller = teller
        self._places: dict[str, list[int]] = {}
        for index, key in enumerate(task.keys):
            self._places.setdefault(key, []).append(index)
        self.trials: dict[int, Trial] = {}
        """By place in the grid."""
        self.reasons: dict[int, str] = {}
        """Why the others have none."""

    def batches(self) -> list[Batch]:
        """What no earlier run finished."""
        missing = []
        for key, places in self._places.items():
            trial = self._folder.finished(key)
            if trial is None:
                missing.append(places[0])
            else:
                self._keep(key, trial)
                self._teller.reused(self._task, places)
        if not self._task.protocol.head.is_trained:
            return side_by_side(self._task, missing)
        return self._banks(missing)

    def _banks(self, missing: Sequence[int]) -> list[Batch]:
        """Banks that an earlier run planned and did not finish are trained again as they were; the rest is planned."""
        keys = self._task.keys
        last = {key: bank for bank in self._folder.banks for key in bank}
        planned = {index: bank for index in missing if _is_of(bank := last.get(keys[index], ()), self._places)}
        task = self._task
        rest = [index for index in missing if index not in planned]
        new = banks(task, rest, lambda index: fitted_bytes(task, index), bank_bytes(self._room.device))
        self._folder.plan_banks([tuple(keys[index] for index in bank) for bank in new])
        again = [
            Batch(
                cells=tuple(self._places[key][0] for key in bank),
                wanted=tuple(index for index in missing if planned.get(index) == bank),
            )
            for bank in dict.fromkeys(planned.values())
        ]
        return again + [Batch(cells=bank, wanted=bank) for bank in new]

    def take(self, event: Event) -> None:
        """Write down what became of a cell, and of those with the same trial."""
        if isinstance(event, AtWork):
            self._teller.at_work(self._task, event)
            return
        key = self._task.keys[event.cell]
        if isinstance(event, Done):
            self._keep(key, event.trial)
        else:
            self.reasons |= dict.fromkeys(self._places[key], event.reason)
        self._teller.done(self._task, self._places[key])

    def _keep(self, key: str, trial: Trial) -> None:
        for index in self._places[key]:
            self.trials[index] = _renamed(trial, self._task.cells[index])
            self._folder.add(self.trials[index])


def _is_of(bank: Sequence[str], keys: Mapping[str, object]) -> bool:
    return bool(bank) and all(key in keys for key in bank)


def _renamed(trial: Trial, cell: Cell) -> Trial:
    """A finished trial as a cell of this grid: names decide nothing, and may be others than when it was run."""
    return replace(
        trial,
        representation=cell.representation.label,
        experiment=cell.experiment,
        control=cell.control,
        seed=cell.seed,
        layers=cell.layers,
    )
