"""Arms beside their base: paired differences of the same representation of the same experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .result import NO_CONTROL, Ablation, ArmComparison, Difference, Trial
from .running.assembly import scored_of
from .running.result_folder import read_predictions
from .running.task import Task
from .statistics.differences import corrected, paired_difference
from .statistics.summary import of_cells


def compare_arms(
    tasks: Mapping[str, Task],
    folders: Mapping[str, Path],
    found: Mapping[str, Ablation],
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]],
) -> tuple[ArmComparison, ...]:
    """Each arm less the base, which is the one without a name. Raises DamageError."""
    comparisons = []
    for arm, settings in changed.items():
        ((setting, (base_value, arm_value)),) = settings.items()
        differences, unpaired = _outcomes(tasks, folders, found, arm)
        comparisons.append(
            ArmComparison(
                arm=arm,
                setting=setting,
                base_value=base_value,
                arm_value=arm_value,
                differences=tuple(differences),
                unpaired=tuple(unpaired),
            )
        )
    every = iter(corrected([each for comparison in comparisons for each in comparison.differences]))
    return tuple(
        replace(comparison, differences=tuple(next(every) for _ in comparison.differences))
        for comparison in comparisons
    )


def _outcomes(
    tasks: Mapping[str, Task], folders: Mapping[str, Path], found: Mapping[str, Ablation], arm: str
) -> tuple[list[Difference], list[str]]:
    """Of every representation of an experiment that both have; and why some are not compared."""
    if found[arm].dataset_digest != found[""].dataset_digest:
        return [], [f"nothing is paired: its samples are of {found[arm].dataset}, those of the base are others"]
    scored = replace(scored_of(tasks[arm], folders[arm]), also=folders[""])
    of_base = of_cells(found[""].trials)
    differences: list[Difference] = []
    reasons = Counter[str]()
    for name, cell in of_cells(found[arm].trials).items():
        if name[2] != NO_CONTROL:
            continue
        of_seed = {trial.seed: trial for trial in of_base.get(name, ())}
        pairs = [(trial, of_seed[trial.seed]) for trial in cell if trial.seed in of_seed]
        same = [pair for pair in pairs if _have_the_same_test(*pair, folders[arm], folders[""])]
        if same:
            differences.append(paired_difference(same, cell[0].experiment, NO_CONTROL, scored))
        if len(same) < len(pairs):
            reasons[f"{len(pairs) - len(same)} of {len(pairs)} seeds, whose test samples differ"] += 1
        elif not pairs:
            reasons["all seeds, since the base has no trial of the same name and seed"] += 1
    return differences, [f"{num} of its estimates leave out {reason}" for reason, num in reasons.items()]


def _have_the_same_test(one: Trial, other: Trial, folder: Path, base: Path) -> bool:
    of_one, of_other = read_predictions(folder, one.key), read_predictions(base, other.key)
    return all(np.array_equal(of_one[name], of_other[name]) for name in ("position", "label"))
