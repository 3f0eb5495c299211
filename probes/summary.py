"""From trials to estimates: means over seeds and paired differences, each with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from .intervals import Interval, corrected_resampled_interval, items_interval
from .result import NO_CONTROL, RANDOM_LAYERS, Difference, Estimate, Trial
from .result_folder import read_predictions
from .splits import GIVEN, SplitRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What heads answered on test."""

    folder: Path
    """Where their predictions are."""
    groups: Sequence[str | None] | None
    """Of the test samples where test is given; None where each stands for itself."""

    def correct(self, trial: Trial) -> np.ndarray:
        """Right or wrong, bool [test samples]. Raises DamageError."""
        stored = read_predictions(self.folder, trial.key)
        return np.asarray(stored["prediction"] == stored["label"])

    def labels(self, trial: Trial) -> np.ndarray:
        """int64 [test samples]. Raises DamageError."""
        return np.asarray(read_predictions(self.folder, trial.key)["label"])


def estimates(trials: Iterable[Trial], rule: SplitRule, scored: Scored) -> list[tuple[Estimate, Interval]]:
    """One for each representation × experiment × control, in the order of the trials."""
    found = []
    for cell in _cells(trials).values():
        if rule.kind == GIVEN:
            correct = np.stack([scored.correct(trial) for trial in cell])
            interval = items_interval(correct, scored.groups, scored.labels(cell[0]))
        else:
            interval = _resampled([trial.test_accuracy for trial in cell], cell, difference=False)
        found.append((_estimate(cell, interval), interval))
    return found


def differences(
    trials: Iterable[Trial], experiments: Sequence[str], rule: SplitRule, scored: Scored
) -> tuple[Difference, ...]:
    """Each experiment less its random layers, and less the first experiment; over the seeds that both have."""
    cells = _cells(trials)
    found = []
    for (representation, experiment, control), cell in cells.items():
        if control != NO_CONTROL or experiment not in experiments:
            continue
        for other, other_control in _others(experiment, experiments):
            of_seed = {trial.seed: trial for trial in cells.get((representation, other, other_control), ())}
            pairs = [(trial, of_seed[trial.seed]) for trial in cell if trial.seed in of_seed]
            if pairs:
                interval = _difference(pairs, rule, scored)
                found.append(
                    Difference(
                        representation=representation,
                        experiment=experiment,
                        other=other,
                        other_control=other_control,
                        num_seeds=len(pairs),
                        mean=interval.mean,
                        ci95=interval.bounds,
                    )
                )
    return tuple(found)


def _cells(trials: Iterable[Trial]) -> dict[tuple[str, str, str], list[Trial]]:
    cells: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        cells.setdefault((trial.representation, trial.experiment, trial.control), []).append(trial)
    return cells


def _others(experiment: str, experiments: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield experiment, RANDOM_LAYERS
    if experiment != experiments[0]:
        yield experiments[0], NO_CONTROL


def _difference(pairs: Sequence[tuple[Trial, Trial]], rule: SplitRule, scored: Scored) -> Interval:
    if rule.kind == GIVEN:
        off = [scored.correct(one).astype(np.int64) - scored.correct(other) for one, other in pairs]
        return items_interval(np.stack(off), scored.groups, scored.labels(pairs[0][0]), difference=True)
    off_S = [one.test_accuracy - other.test_accuracy for one, other in pairs]
    return _resampled(off_S, [one for one, _ in pairs], difference=True)


def _resampled(values: Sequence[float], cell: Sequence[Trial], *, difference: bool) -> Interval:
    return corrected_resampled_interval(
        values,
        num_train=float(np.mean([trial.num_train + trial.num_validation for trial in cell])),
        num_test=float(np.mean([trial.num_test for trial in cell])),
        difference=difference,
    )


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
