"""From trials to estimates: means over seeds, each with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from ..result import NO_CONTROL, Estimate, Trial
from ..running.result_folder import has_predictions, read_predictions
from ..splits import GIVEN, INDEPENDENT, RESPLIT
from .intervals import SOME_HEADS, Interval, corrected_resampled_interval, items_interval, t_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What heads answered on test, and how the test sets of the seeds belong together."""

    folder: Path
    """Where their predictions are."""
    groups: Sequence[str | None] | None
    """Of the test samples where all seeds have the same; None where each stands for itself."""
    sampling: str = RESPLIT
    """As `Protocol.sampling`: `given` where all seeds have the same test samples."""
    heads: str = SOME_HEADS
    """As `Protocol.heads`."""
    also: Path | None = None
    """Where predictions are that are not in `folder`."""
    num_samples: int | None = None
    """That resplits divide; None for those that trials have on their three sides."""

    def correct(self, trial: Trial) -> np.ndarray:
        """Right or wrong, bool [test samples]. Raises DamageError."""
        stored = self._stored(trial)
        return np.asarray(stored["prediction"] == stored["label"])

    def labels(self, trial: Trial) -> np.ndarray:
        """int64 [test samples]. Raises DamageError."""
        return np.asarray(self._stored(trial)["label"])

    def _stored(self, trial: Trial) -> dict[str, np.ndarray]:
        is_elsewhere = self.also is not None and not has_predictions(self.folder, trial.key)
        return read_predictions(self.also if self.also is not None and is_elsewhere else self.folder, trial.key)

    def interval(self, cell: Sequence[Trial]) -> Interval:
        """Of the test accuracy of trials that differ in their seeds. Raises DamageError."""
        if self.sampling == GIVEN:
            correct = np.stack([self.correct(trial) for trial in cell])
            return items_interval(correct, self.groups, self.labels(cell[0]), heads=self.heads)
        return self.seeds_interval([trial.test_accuracy for trial in cell], cell)

    def seeds_interval(self, values: Sequence[float], cell: Sequence[Trial], *, difference: bool = False) -> Interval:
        """Of numbers that each seed gives one of, where each seed has test samples of its own."""
        if self.sampling == INDEPENDENT:
            return t_interval(values, difference=difference)
        num_test = float(np.mean([trial.num_test for trial in cell]))
        return corrected_resampled_interval(values, self.num_rest(cell), num_test, difference=difference)

    def num_rest(self, cell: Sequence[Trial]) -> float:
        """Samples that are not in test, those that a few-shot train leaves out among them."""
        if self.num_samples is None:
            return float(np.mean([trial.num_train + trial.num_validation for trial in cell]))
        return self.num_samples - float(np.mean([trial.num_test for trial in cell]))


def estimates(trials: Iterable[Trial], scored: Scored) -> list[tuple[Estimate, Interval]]:
    """One for each representation × experiment × control, in the order of the trials."""
    found = ((cell, scored.interval(cell)) for cell in of_cells(trials).values())
    return [(_estimate(cell, interval), interval) for cell, interval in found]


def of_cells(trials: Iterable[Trial]) -> dict[tuple[str, str, str], list[Trial]]:
    """Trials of each representation, experiment and control, in their order."""
    cells: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        cells.setdefault((trial.representation, trial.experiment, trial.control), []).append(trial)
    return cells


def _estimate(cell: Sequence[Trial], interval: Interval) -> Estimate:
    first = cell[0]
    accuracies = [trial.test_accuracy for trial in cell]
    return Estimate(
        representation=first.representation,
        experiment=first.experiment,
        control=first.control,
        num_seeds=len(cell),
        mean=float(np.mean(accuracies)),
        sd=float(np.std(accuracies, ddof=1)) if len(cell) > 1 else 0.0,
        ci95=interval.bounds,
        chance=float(np.mean([trial.chance for trial in cell])),
        num_layers=len(first.layers),
        num_features=round(median(trial.num_features for trial in cell)),
        num_effective=round(median(trial.num_effective for trial in cell)),
    )


def spoken_for(found: Sequence[tuple[Estimate, Interval]]) -> tuple[str, str]:
    """The estimand and the method of most intervals; those of experiments come before their controls'."""
    said = Counter[tuple[str, str]]()
    for estimate, interval in found:
        weight = len(found) if estimate.control == NO_CONTROL else 1
        said[interval.estimand, interval.method] += weight
    return said.most_common(1)[0][0] if said else ("", "")
