"""What stored predictions say beside accuracy: confusion, classes one by one, F1, calibration.

Axes: M test samples, K classes, B bins, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..result import NO_CONTROL, Metrics, Trial
from ..running.result_folder import read_predictions
from ..splits import GIVEN, INDEPENDENT
from .intervals import corrected_resampled_interval, items_interval, t_interval
from .summary import Scored, of_cells

_Intervals: TypeAlias = tuple[tuple[float, float] | None, ...]
NUM_BINS = 15
LEAST_PROBABILITY = 1e-7
MAX_CONFUSION_CLASSES = 100
"""Of more classes a cell's confusion is not kept: it grows with their square, and its predictions are there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What one trial's head answered on test."""

    labels: np.ndarray
    """int64 [M]."""
    predictions: np.ndarray
    """int64 [M]."""
    probabilities: np.ndarray | None
    """float [M, K]; None for a head that gives none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """How far a head's probabilities can be believed."""

    error: float
    """Expected calibration error: the mean distance of confidence and accuracy of a bin, weighed by its samples."""
    brier: float
    """As in Metrics."""
    log_loss: float
    """As in Metrics."""
    num_B: np.ndarray
    """Samples of each bin, int64."""
    confidence_B: np.ndarray
    """Sum of the answers' probabilities in each bin."""
    correct_B: np.ndarray
    """How many of each bin are right."""


def metrics(trials: Iterable[Trial], num_classes: int, scored: Scored) -> tuple[Metrics, ...]:
    """One for each representation × experiment × control, in the order of the estimates. Raises DamageError."""
    return tuple(_metrics(cell, num_classes, scored) for cell in of_cells(trials).values())


def read_answers(folder: Path, trial: Trial) -> Answers:
    """From its file. Raises DamageError."""
    stored = read_predictions(folder, trial.key)
    return Answers(labels=stored["label"], predictions=stored["prediction"], probabilities=stored.get("probability"))


def confusion_matrix(labels_M: np.ndarray, predictions_M: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [K, K]: how many of a class (row) were answered with a class (column)."""
    counts = np.bincount(labels_M * num_classes + predictions_M, minlength=num_classes**2)
    return np.reshape(counts, (num_classes, num_classes))


def macro_f1(confusion_KK: np.ndarray) -> float:
    """Mean of the classes' F1, 0 for a class that is never right; without those neither tested nor answered."""
    sums_K = confusion_KK.sum(0) + confusion_KK.sum(1)
    return float(np.mean(2 * confusion_KK.diagonal()[sums_K > 0] / sums_K[sums_K > 0]))


def recalls(confusion_KK: np.ndarray) -> np.ndarray:
    """The share of each class that is answered right, float64 [K]; not a number for a class that is not tested."""
    num_K = confusion_KK.sum(1)
    recall_K = np.full(len(num_K), np.nan)
    np.divide(confusion_KK.diagonal(), num_K, out=recall_K, where=num_K > 0)
    return recall_K


def calibration(labels_M: np.ndarray, predictions_M: np.ndarray, probabilities_MK: np.ndarray) -> Calibration:
    """Of the probabilities of one trial.

    A bin holds its upper end, and the first its lower one too, so that a confidence of 1 is in the last (Guo et al.
    2017).
    """
    p_MK = probabilities_MK.astype(np.float64)
    rows_M = np.arange(len(labels_M))
    confidence_M = p_MK[rows_M, predictions_M]
    bin_M = np.clip(np.ceil(confidence_M * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    num_B, confidence_B, correct_B = (
        np.bincount(bin_M, weights, NUM_BINS) for weights in (None, confidence_M, predictions_M == labels_M)
    )
    p_true_M = p_MK[rows_M, labels_M]
    return Calibration(
        error=float(np.abs(confidence_B - correct_B).sum() / len(labels_M)),
        brier=float(np.mean((p_MK**2).sum(1) - 2 * p_true_M + 1)),
        log_loss=float(-np.mean(np.log(np.maximum(p_true_M, LEAST_PROBABILITY)))),
        num_B=num_B,
        confidence_B=confidence_B,
        correct_B=correct_B,
    )


def _metrics(cell: Sequence[Trial], num_classes: int, scored: Scored) -> Metrics:
    answers = [read_answers(scored.folder, trial) for trial in cell]
    confusions = [confusion_matrix(each.labels, each.predictions, num_classes) for each in answers]
    recalls_SK = np.stack([recalls(each) for each in confusions])
    tested_SK = ~np.isnan(recalls_SK)
    means_K = np.nansum(recalls_SK, 0) / np.maximum(tested_SK.sum(0), 1)
    first = cell[0]
    is_kept = first.control == NO_CONTROL and num_classes <= MAX_CONFUSION_CLASSES
    intervals = (
        _given_intervals(answers, num_classes, scored.groups)
        if scored.sampling == GIVEN
        else _seeds_intervals(cell, recalls_SK, np.stack([each.sum(1) for each in confusions]), scored)
    )
    return Metrics(
        representation=first.representation,
        experiment=first.experiment,
        control=first.control,
        num_seeds=len(cell),
        confusion=tuple(map(tuple, np.sum(confusions, 0).tolist())) if is_kept else (),
        class_accuracies=tuple(
            mean if is_tested else None
            for mean, is_tested in zip(means_K.tolist(), tested_SK.any(0).tolist(), strict=True)
        ),
        class_intervals=intervals,
        balanced_accuracy=float(np.nanmean(recalls_SK, 1).mean()),
        macro_f1=float(np.mean([macro_f1(each) for each in confusions])),
        **_calibrations(answers),
    )


def _seeds_intervals(
    cell: Sequence[Trial], recalls_SK: np.ndarray, tested_SK: np.ndarray, scored: Scored
) -> _Intervals:
    """Over the seeds that test a class; it has the share of test in its samples that all classes have."""
    share = float(np.mean([trial.num_test for trial in cell])) / scored.num_rest(cell)
    found: list[tuple[float, float] | None] = []
    for recalls_S, tested_S in zip(recalls_SK.T, tested_SK.T, strict=True):
        values = recalls_S[tested_S > 0].tolist()
        if not values:
            found.append(None)
        elif scored.sampling == INDEPENDENT:
            found.append(t_interval(values).bounds)
        else:
            num_test = float(tested_S[tested_S > 0].mean())
            found.append(corrected_resampled_interval(values, num_test / share, num_test).bounds)
    return tuple(found)


def _given_intervals(answers: Sequence[Answers], num_classes: int, groups: Sequence[str | None] | None) -> _Intervals:
    """Test is the same for all seeds: of a class's items."""
    labels_M = answers[0].labels
    correct_SM = np.stack([each.predictions == labels_M for each in answers])
    found: list[tuple[float, float] | None] = []
    for number in range(num_classes):
        items = np.flatnonzero(labels_M == number)
        theirs = None if groups is None else [groups[place] for place in items.tolist()]
        found.append(items_interval(correct_SM[:, items], theirs).bounds if len(items) else None)
    return tuple(found)


def _calibrations(answers: Sequence[Answers]) -> dict[str, Any]:
    """The fields of Metrics that need probabilities."""
    found = [
        calibration(each.labels, each.predictions, each.probabilities)
        for each in answers
        if each.probabilities is not None and np.isfinite(each.probabilities).all()
    ]
    if len(found) < len(answers):
        return {"calibration_error": None, "brier": None, "log_loss": None}
    num_B, confidence_B, correct_B = (
        np.sum([getattr(each, name) for each in found], 0) for name in ("num_B", "confidence_B", "correct_B")
    )
    at_least_one_B = np.maximum(num_B, 1)
    bins = zip(
        num_B.tolist(), (confidence_B / at_least_one_B).tolist(), (correct_B / at_least_one_B).tolist(), strict=True
    )
    return {
        "calibration_error": float(np.mean([each.error for each in found])),
        "brier": float(np.mean([each.brier for each in found])),
        "log_loss": float(np.mean([each.log_loss for each in found])),
        "reliability": tuple(bins),
    }
