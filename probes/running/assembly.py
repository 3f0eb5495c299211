"""What all trials of an ablation came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..grid import Cell
from ..result import Ablation, FailedTrial, Trial
from ..statistics.differences import differences
from ..statistics.metrics import metrics
from ..statistics.summary import Scored, estimates, spoken_for
from ..tables.notices import notices
from .task import Task


def assemble(
    task: Task, folder: Path, trials: Mapping[int, Trial], reasons: Mapping[int, str], environment: Mapping[str, Any]
) -> Ablation:
    """Of the cells' trials, and the reasons of those without, by place in the grid. Raises DamageError."""
    given, samples, config, protocol = task.given, task.given.samples, task.config, task.protocol
    in_order = tuple(trials[index] for index in range(len(task.cells)) if index in trials)
    scored = scored_of(task, folder)
    found = estimates(in_order, scored)
    estimand, interval = spoken_for(found)
    return Ablation(
        name=config.name,
        cache=config.cache,
        dataset=given.ref.name,
        dataset_digest=given.ref.dataset,
        num_samples=len(samples),
        num_missing=samples.num_missing,
        classes=samples.classes,
        class_counts=samples.class_counts,
        experiments=given.sets.experiments,
        single_layers=given.sets.single,
        protocol=protocol.document(),
        estimand=estimand,
        interval=interval,
        features=given.used,
        estimates=tuple(estimate for estimate, _ in found),
        differences=differences(in_order, tuple(given.sets.experiments), scored),
        metrics=metrics(in_order, len(samples.classes), scored),
        trials=in_order,
        environment=environment,
        failures=tuple(_failed(task.cells[index], reasons[index]) for index in sorted(reasons)),
        warnings=notices(config, given, protocol, in_order, [interval for _, interval in found]),
    )


def scored_of(task: Task, folder: Path) -> Scored:
    """How the answers in a folder are to be compared."""
    return Scored(
        folder=folder,
        groups=_test_groups(task),
        sampling=task.protocol.sampling,
        heads=task.protocol.heads,
        num_samples=len(task.given.samples),
    )


def _test_groups(task: Task) -> list[str | None] | None:
    """Of the test samples, where they are the same for every seed."""
    groups = task.given.samples.groups
    if not task.protocol.test_is_fixed or not task.protocol.rule.group or groups is None:
        return None
    first = next(iter(task.protocol.partitions.values()))
    return [groups[position] for position in first.test.tolist()]


def _failed(cell: Cell, reason: str) -> FailedTrial:
    return FailedTrial(
        representation=cell.representation.label,
        experiment=cell.experiment,
        control=cell.control,
        seed=cell.seed,
        reason=" ".join(reason.split()),
    )
