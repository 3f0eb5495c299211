"""Running cells: reading their numbers, fitting their heads, keeping their predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from fovcache.console import THREAD_PREFIX
from fovcache.errors import EnvironmentFailure, FovcacheError, UsageError
from fovcache.store.storage import LocalStorage

from ..config import INITIALISATION, ORDER
from ..evaluate import Outcome, Prepared, finish, prepare, shuffled_labels
from ..heads.head import Fitted
from ..one_thread import one_thread
from ..result import SHUFFLED_LABELS, Trial
from .batches import Batch, groups
from .events import AtWork, Done, Event, Failed
from .memory import Room, needed_bytes, together_bytes
from .numbers import Numbers
from .result_folder import keep_predictions
from .task import Task

Made = TypeVar("Made")


class Executor(Protocol):
    """Runs batches: in this process, or in another that can be killed."""

    def run(self, task: Task, room: Room, folder: Path, batches: Sequence[Batch]) -> Generator[Event, None, None]:
        """One after another; each wanted cell is told of once, its predictions being in `folder`.

        Raises DamageError, EnvironmentFailure.
        """


class InProcess:
    """Runs batches here."""

    def run(self, task: Task, room: Room, folder: Path, batches: Sequence[Batch]) -> Generator[Event, None, None]:
        """As in Executor."""
        with closing(Work(task, room, folder)) as work:
            for batch in batches:
                yield from work.run(batch)


class Work:
    """Runs one batch at a time of a task. Close it to end its threads."""

    def __init__(self, task: Task, room: Room, folder: Path) -> None:
        self._task = task
        self._head = task.protocol.head
        self._room = room
        self._storage = LocalStorage(folder)
        self._numbers = Numbers(task.given, room.device, room.kept_bytes)
        self._pool = ThreadPoolExecutor(room.num_workers, f"{THREAD_PREFIX}trial")

    def close(self) -> None:
        """A run that is stopped does not wait for the heads that it is at."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, batch: Batch) -> Iterator[Event]:
        """Tells of each wanted cell once. Raises DamageError, EnvironmentFailure."""
        x_of: dict[int, torch.Tensor] = {}
        for group in groups(self._task, batch.cells):
            try:
                x = yield from self._read(group[0], batch)
            except UsageError as error:
                yield from (Failed(cell=index, reason=str(error)) for index in group if index in batch.wanted)
            else:
                x_of |= dict.fromkeys(group, x)
        yield from (self._together if self._head.is_trained else self._side_by_side)(batch, x_of)

    def _read(self, index: int, batch: Batch) -> Generator[Event, None, torch.Tensor]:
        """float32 [n, F] of a cell, where heads run."""
        cell = self._task.cells[index]
        reading = self._numbers.of(cell.representation, cell.layers)
        try:
            while True:
                layer = next(reading)
                yield AtWork(stage=f"derive {cell.representation.label} of {layer}", cell=index)
        except StopIteration as done:
            x: torch.Tensor = done.value
        needed = needed_bytes(self._task, index, self._room.num_workers)
        if self._head.is_trained:
            needed = together_bytes(self._task, batch.cells)
        return x.to(self._room.place(needed))

    def _side_by_side(self, batch: Batch, x_of: Mapping[int, torch.Tensor]) -> Iterator[Event]:
        """Heads of a closed form, one a thread."""
        yield from (AtWork(stage="ablate", cell=index) for index in list(x_of)[:1])
        with one_thread():
            found = self._pool.map(lambda item: _or_reason(self._alone, *item), x_of.items())
            for index, outcome in zip(x_of, found, strict=True):
                yield self._event(index, outcome, batch)

    def _alone(self, index: int, x: torch.Tensor) -> Outcome:
        prepared = self._prepared(index, x)
        started = time.perf_counter()
        (fitted,) = self._head.fit([prepared.problem])
        return self._finished(index, prepared, fitted, time.perf_counter() - started)

    def _together(self, batch: Batch, x_of: Mapping[int, torch.Tensor]) -> Iterator[Event]:
        """Trained heads as one bank, with all threads. Where that fails, each by itself."""
        prepared = dict(
            zip(x_of, self._pool.map(lambda item: _or_reason(self._prepared, *item), x_of.items()), strict=True)
        )
        ready = {index: each for index, each in prepared.items() if not isinstance(each, str)}
        yield from (AtWork(stage=f"train {len(ready)} heads", cell=index) for index in list(ready)[:1])
        started = time.perf_counter()
        bank = _or_reason(self._head.fit, [each.problem for each in ready.values()]) if ready else ()
        share_s = (time.perf_counter() - started) / max(1, len(ready))
        if isinstance(bank, str):
            alone = replace(batch, notes=(f"trained by itself, since training it with others failed: {bank}",))
            for index in ready:
                outcome = _or_reason(self._alone, index, x_of[index]) if len(ready) > 1 else bank
                if index in batch.wanted:
                    yield self._event(index, outcome, alone)
        else:
            for index, fitted in zip(ready, bank, strict=True):
                if index in batch.wanted:
                    yield self._event(index, _or_reason(self._finished, index, ready[index], fitted, share_s), batch)
        for index, reason in prepared.items():
            if isinstance(reason, str) and index in batch.wanted:
                yield Failed(cell=index, reason=reason)

    def _prepared(self, index: int, x: torch.Tensor) -> Prepared:
        cell, protocol, samples = self._task.cells[index], self._task.protocol, self._task.given.samples
        partition = protocol.partitions[cell.seed]
        labels = samples.labels
        if cell.control == SHUFFLED_LABELS:
            labels = shuffled_labels(labels, partition, cell.seed)
        return prepare(
            x,
            labels,
            partition,
            len(samples.classes),
            initialisation_seed=protocol.seed_of(INITIALISATION, cell.seed),
            order_seed=protocol.seed_of(ORDER, cell.seed),
        )

    def _finished(self, index: int, prepared: Prepared, fitted: Fitted, fit_seconds: float) -> Outcome:
        outcome = finish(prepared, self._head, fitted, fit_seconds)
        samples = self._task.given.samples
        test = self._task.protocol.partitions[self._task.cells[index].seed].test
        keep_predictions(
            self._storage,
            self._task.keys[index],
            samples.positions[test],
            samples.labels[test],
            outcome.predictions,
            outcome.probabilities,
        )
        return outcome

    def _event(self, index: int, outcome: Outcome | str, batch: Batch) -> Event:
        if isinstance(outcome, str):
            return Failed(cell=index, reason=outcome)
        task, cell = self._task, self._task.cells[index]
        partition = task.protocol.partitions[cell.seed]
        trial = Trial(
            key=task.keys[index],
            representation=cell.representation.label,
            experiment=cell.experiment,
            control=cell.control,
            seed=cell.seed,
            layers=cell.layers,
            head=self._head.name,
            setting=outcome.setting,
            num_train=len(partition.train),
            num_validation=len(partition.validation),
            num_test=len(partition.test),
            num_features=outcome.num_features,
            num_effective=outcome.num_effective,
            train_accuracy=outcome.train_accuracy,
            validation_accuracy=outcome.validation_accuracy,
            test_accuracy=outcome.test_accuracy,
            chance=outcome.chance,
            seconds=outcome.seconds,
            samples_seen=outcome.samples_seen,
            notes=(*outcome.notes, *batch.notes),
        )
        return Done(cell=index, trial=trial)


def _or_reason(function: Callable[..., Made], *values: object) -> Made | str:
    """What it returns, or why one cell fails: it is told, and the others go on. Raises EnvironmentFailure."""
    try:
        return function(*values)
    except EnvironmentFailure:  # no cell's fault: a full disk, say
        raise
    except FovcacheError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - as above
        return f"{type(error).__name__}: {error}"
