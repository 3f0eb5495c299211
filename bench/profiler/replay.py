"""Runs a workload for some batches, overlapped, without measuring: for traces and flame graphs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.stage import Failed, Stage

from .workload import Workload


def replay(workload: Workload, num_batches: int, *, after_batch: Callable[[], object] = lambda: None) -> None:
    """Run `num_batches` steps in the caller's thread, the inputs on theirs. Raises what a stage does."""
    pipeline = Pipeline([*workload.inputs, _training(workload)])
    with contextlib.closing(pipeline.run(workload.source())) as results:
        for _ in itertools.islice(results, num_batches):
            after_batch()


def wrapped(workload: Workload, wrap: Callable[[str, Callable[[Any], Any]], Callable[[Any], Any]]) -> Workload:
    """The workload with `wrap(stage id, run)` in the place of each stage's `run`."""

    def changed(stage: Stage) -> Stage:
        return replace(stage, run=wrap(stage.id, stage.run))

    return replace(workload, inputs=tuple(map(changed, workload.inputs)), steps=tuple(map(changed, workload.steps)))


def _training(workload: Workload) -> Stage:
    def batches(samples: Iterator[Any]) -> Iterator[list[Any]]:
        arrived = (sample for sample in samples if not isinstance(sample, Failed))
        while batch := list(itertools.islice(arrived, workload.batch_size)):
            yield batch

    def step(batch: Any) -> None:
        for stage in workload.steps:
            batch = stage.run(batch)
        workload.device.synchronize()

    return Stage(
        id="training",
        name="training",
        resource=workload.steps[0].resource,
        run=step,
        regroup=batches,
        in_caller=True,
        max_queued=workload.max_queued,
    )
