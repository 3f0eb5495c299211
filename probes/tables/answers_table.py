"""What answers say beside accuracy as a table of texts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ..result import NO_CONTROL, Ablation, Metrics
from .ablation_tables import TextTable

_NONE = "–"


def answers_table(ablation: Ablation) -> TextTable:
    """One row for each representation of each experiment, or of each single layer where there is no experiment."""
    rows = list(_shown(ablation))
    has_error = any(each.calibration_error is not None for each in rows)
    has_seen = any(trial.samples_seen for trial in ablation.trials)
    columns = ["experiment", "representation", ">macro F1", ">balanced accuracy", "worst class", ">its accuracy"]
    columns += [">calibration error"] if has_error else []
    columns += [">samples seen"] if has_seen else []
    return TextTable(
        title="Beside accuracy, means over seeds",
        columns=tuple(columns),
        rows=tuple(
            (
                each.experiment,
                each.representation,
                f"{each.macro_f1:.3f}",
                f"{each.balanced_accuracy:.3f}",
                *_worst(ablation, each),
                *([_NONE if each.calibration_error is None else f"{each.calibration_error:.3f}"] if has_error else []),
                *([_seen(ablation, each)] if has_seen else []),
            )
            for each in rows
        ),
    )


def _shown(ablation: Ablation) -> Iterator[Metrics]:
    names = tuple(ablation.experiments) or ablation.single_layers
    for name in names:
        yield from (each for each in ablation.metrics if (each.experiment, each.control) == (name, NO_CONTROL))


def _worst(ablation: Ablation, metrics: Metrics) -> tuple[str, str]:
    """Its name, and its accuracy with the interval."""
    found = [(mean, number) for number, mean in enumerate(metrics.class_accuracies) if mean is not None]
    if not found:
        return _NONE, _NONE
    mean, number = min(found)
    bounds = metrics.class_intervals[number]
    within = "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
    return ablation.classes[number], f"{mean:.3f}{within}"


def _seen(ablation: Ablation, metrics: Metrics) -> str:
    """The mean over seeds."""
    cell = metrics.representation, metrics.experiment, metrics.control
    found = [trial for trial in ablation.trials if (trial.representation, trial.experiment, trial.control) == cell]
    return f"{statistics.fmean(trial.samples_seen for trial in found):,.0f}" if found else _NONE
