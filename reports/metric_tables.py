"""Tables of what predictions say beside accuracy: of each cell, and of each class of the cell that is shown closely."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fovcache.probes.result import Ablation, Estimate, Metrics

from . import numbers
from .cells import chosen, estimates, key_of, metrics_of, named_experiments, trials_by_cell
from .names import shown
from .table import ABSENT, Cell, Table, accuracy, count, table, text

MAX_CLASSES = 100
_READING = (
    "Macro F1 is the mean over classes, balanced accuracy the mean of the classes' accuracies, worst class the one "
    "with the lowest"
)
_CALIBRATION = (
    "; calibration error is the distance of confidence and accuracy in 15 bins of equal width, in points; the Brier "
    "score is the squared distance of probabilities and truth (0 to 2), log loss in nats"
)


def metrics_table(ablation: Ablation, id: str) -> Table:
    """One row for each named experiment, or single layer where there is none, of each representation."""
    cells = estimates(ablation, named_experiments(ablation) or ablation.single_layers)
    rows = [(cell, metrics) for cell in cells if (metrics := metrics_of(ablation, cell)) is not None]
    has_probabilities = any(metrics.calibration_error is not None for _, metrics in rows)
    seen = {
        key: statistics.fmean(trial.samples_seen for trial in trials)
        for key, trials in trials_by_cell(ablation).items()
    }
    has_seen = any(seen.get(key_of(cell)) for cell, _ in rows)
    columns = ["representation", "<experiment", "macro F1", "balanced accuracy", "<worst class"]
    columns += ["calibration error", "Brier", "log loss"] if has_probabilities else []
    columns += ["samples seen"] if has_seen else []
    caption = f"{_READING}{_CALIBRATION if has_probabilities else ''}. All are means over seeds."
    if has_seen:
        caption += " Samples seen: how many a head was trained on, each time counted, with all its candidates."
    return table(
        id,
        caption,
        columns,
        (
            [
                text(cell.representation),
                text(cell.experiment),
                _share(metrics.macro_f1),
                accuracy(metrics.balanced_accuracy),
                _worst(ablation, metrics),
                *(_calibration(metrics) if has_probabilities else ()),
                *([count(round(seen.get(key_of(cell), 0)))] if has_seen else ()),
            ]
            for cell, metrics in rows
        ),
    )


def classes_table(ablation: Ablation, id: str) -> Table:
    """One row for each class, of the cell that validation chooses; the worst alone where there are many."""
    cell = chosen(ablation)
    metrics = metrics_of(ablation, cell)
    tested = [] if metrics is None else [k for k, mean in enumerate(metrics.class_accuracies) if mean is not None]
    if cell is None or metrics is None or not tested:
        return table(id, "", ("class",), ())
    accuracies = metrics.class_accuracies
    worst = sorted(tested, key=lambda number: accuracies[number] or 0.0)[:MAX_CLASSES]
    caption = (
        f"Classes of {shown(cell.representation, 40)} of {shown(cell.experiment, 40)}, the cell with the highest "
        "validation accuracy: mean over seeds and 95 % interval"
    )
    is_cut = len(worst) < len(tested)
    caption += f"; the {numbers.count(len(worst))} worst of {numbers.count(len(tested))}." if is_cut else "."
    columns = ["class", "accuracy", "95 % interval"]
    columns += ["test samples", "<most often taken for"] if metrics.confusion else []
    return table(id, caption, columns, (_class_row(ablation, cell, metrics, number) for number in sorted(worst)))


def _class_row(ablation: Ablation, cell: Estimate, metrics: Metrics, number: int) -> list[Cell]:
    mean = metrics.class_accuracies[number]
    row = [
        text(ablation.classes[number]),
        ABSENT if mean is None else accuracy(mean),
        Cell(text=numbers.interval(metrics.class_intervals[number])),
    ]
    if metrics.confusion:
        answers = metrics.confusion[number]
        row += [count(round(sum(answers) / max(cell.num_seeds, 1))), _mistake(ablation, number, answers)]
    return row


def _mistake(ablation: Ablation, number: int, answers: Sequence[int]) -> Cell:
    """The other class that is answered most often, and how often."""
    others = [(num, other) for other, num in enumerate(answers) if other != number]
    most, other = max(others, default=(0, 0), key=lambda each: each[0])
    if not most:
        return Cell(text="none")
    return Cell(text=f"{shown(ablation.classes[other])}, {numbers.percent(most / sum(answers))}")


def _worst(ablation: Ablation, metrics: Metrics) -> Cell:
    found = [(mean, number) for number, mean in enumerate(metrics.class_accuracies) if mean is not None]
    if not found:
        return ABSENT
    mean, number = min(found)
    within = metrics.class_intervals[number]
    name = f"{shown(ablation.classes[number])}, {numbers.percent(mean)}"
    return Cell(text=name, note=numbers.interval(within) if within else "")


def _calibration(metrics: Metrics) -> list[Cell]:
    if metrics.calibration_error is None or metrics.brier is None or metrics.log_loss is None:
        return [ABSENT] * 3
    error = Cell(text=numbers.points(metrics.calibration_error), value=metrics.calibration_error)
    return [error, _share(metrics.brier), _share(metrics.log_loss)]


def _share(value: float) -> Cell:
    return Cell(text=f"{value:.3f}", value=value)
