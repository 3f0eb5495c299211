"""Measuring some steps, validation batches and checkpoints before a run, which leaves no trace of them in it."""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..feed import FeedBatch
from ..plan import Warmup
from ..result import LOG_FILE
from ..settings import TrainSettings
from .gauges import Gauges
from .log import RunLog
from .step_record import StepRecord
from .trainer import Trainer

logger = logging.getLogger(__name__)

_MOST_STEPS, _LEAST_STEPS, _MOST_DROPPED = 8, 2, 3
_SHARE_OF_STEPS = 20
_ENOUGH_S = 20.0
"""After so long no more steps are measured than the least."""
_EVALUATION_BATCHES = 3
_CHECKPOINTS = 2


class Ahead:
    """Batches of which some were used before their time; they come again, in their place."""

    def __init__(self, batches: Iterator[FeedBatch]) -> None:
        self._batches = batches
        self._kept: list[FeedBatch] = []

    def next_ahead(self) -> FeedBatch:
        """One more batch before its time."""
        self._kept.append(next(self._batches))
        return self._kept[-1]

    def __iter__(self) -> Iterator[FeedBatch]:
        while self._kept:
            yield self._kept.pop(0)
        yield from self._batches


def measure(
    trainer: Trainer,
    batches: Ahead,
    settings: TrainSettings,
    gauges: Gauges,
    *,
    folder: Path,
    tell: Callable[[RunLog, StepRecord, float, float], None],
    save: Callable[[Path], Path],
    started: float,
    is_alone: bool,
) -> Warmup:
    """What the plan is made of; the trainer is afterwards as before, to the bit, and `folder` is gone.

    `tell` logs a step, the seconds that were waited for its batch, and those that it took. `save` writes a checkpoint.
    `is_alone`: how many steps are measured may depend on how long they take.
    Raises what steps and checkpoints raise.
    """
    snapshot, on_event = trainer.snapshot(), trainer.on_event
    trainer.on_event = logger.warning  # the run will tell of its own
    log = RunLog(folder / LOG_FILE)
    num = max(_LEAST_STEPS, min(_MOST_STEPS, settings.num_steps // _SHARE_OF_STEPS))
    num_dropped = min(_MOST_DROPPED, 1 + settings.num_steps // (2 * _SHARE_OF_STEPS))
    dropped: list[float] = []
    compute: list[float] = []
    data: list[float] = []
    other: list[float] = []
    begun = time.perf_counter()
    try:
        for number in range(num_dropped + num):
            if is_alone and len(compute) >= _LEAST_STEPS and time.perf_counter() - begun > _ENOUGH_S:
                break
            marks = [time.perf_counter()]
            batch = batches.next_ahead()
            marks.append(time.perf_counter())
            record = trainer.step(batch)
            trainer.synchronize()
            marks.append(time.perf_counter())
            tell(log, record, marks[1] - marks[0], marks[2] - marks[0])
            marks.append(time.perf_counter())
            if number < num_dropped:
                dropped.append(marks[-1] - marks[0])
                continue
            for times, (before, after) in zip((data, compute, other), itertools.pairwise(marks), strict=True):
                times.append(after - before)
        evaluation, num_batches = trainer.evaluation_times_s(_EVALUATION_BATCHES)
        checkpoint, checkpoint_bytes = _saved(folder, save)
    finally:
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
        trainer.restore(snapshot)
        trainer.on_event = on_event
    gauges.read(at_once=True)
    return Warmup(
        compute_s=tuple(compute),
        data_s=tuple(data),
        other_s=tuple(other),
        dropped_s=tuple(dropped),
        evaluation_s=evaluation,
        batches_per_evaluation=num_batches,
        checkpoint_s=checkpoint,
        start_s=time.perf_counter() - started,
        checkpoint_bytes=checkpoint_bytes,
        log_bytes_per_step=log.num_bytes / (len(dropped) + len(compute)),
        memory_bytes=gauges.peak_memory_bytes,
    )


def _saved(folder: Path, save: Callable[[Path], Path]) -> tuple[tuple[float, ...], int]:
    """How long each took, and the bytes of one."""
    times_s = []
    size_bytes = 0
    for number in range(_CHECKPOINTS):
        began = time.perf_counter()
        path = save(folder / str(number))
        times_s.append(time.perf_counter() - began)
        if path.exists():  # in the process that writes
            size_bytes = sum(each.stat().st_size for each in path.iterdir())
    return tuple(times_s), size_bytes
