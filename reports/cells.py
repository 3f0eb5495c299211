"""The cells of an ablation in the order in which figures and tables show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fovcache.probes.result import (
    NO_CONTROL,
    RANDOM_LAYERS,
    SHUFFLED_LABELS,
    Ablation,
    Estimate,
    Metrics,
    Trial,
)

CONTROL_NAMES = {RANDOM_LAYERS: "random layers, as many", SHUFFLED_LABELS: "shuffled labels"}
"""In the order in which they are shown."""


def named_experiments(ablation: Ablation) -> list[str]:
    """Those of the configuration, in its order: all but single layers."""
    single = set(ablation.single_layers)
    return [name for name in ablation.experiments if name not in single]


def representations(ablation: Ablation) -> list[str]:
    """The best first, by the first experiment of which a representation has an estimate."""
    experiments = [*named_experiments(ablation), *ablation.single_layers]
    best: dict[str, tuple[int, float]] = {}
    for each in ablation.estimates:
        if each.control == NO_CONTROL and each.experiment in experiments:
            place = experiments.index(each.experiment), -each.mean
            best[each.representation] = min(best.get(each.representation, place), place)
    return sorted(best, key=lambda name: best[name])


def estimates(ablation: Ablation, experiments: Sequence[str], control: str = NO_CONTROL) -> list[Estimate]:
    """Those of these experiments that were run, by representation, then experiment."""
    cells = ((name, experiment) for name in representations(ablation) for experiment in experiments)
    return [found for cell in cells if (found := ablation.estimate(*cell, control)) is not None]


def controls(ablation: Ablation, experiments: Sequence[str]) -> list[str]:
    """The controls that were run of any of these experiments."""
    return [control for control in CONTROL_NAMES if estimates(ablation, experiments, control)]


def chance(ablation: Ablation) -> float:
    """The mean of the estimates' chance levels; not a number without estimates."""
    levels = [each.chance for each in ablation.estimates if each.control == NO_CONTROL]
    return statistics.fmean(levels) if levels else float("nan")


def key_of(each: Estimate | Metrics | Trial) -> tuple[str, str, str]:
    """What an estimate, its metrics and its trials have in common."""
    return each.representation, each.experiment, each.control


def name_of(each: Estimate | Metrics) -> str:
    """A cell without control, as the command takes it: `spectral:early`."""
    return f"{each.representation}:{each.experiment}"


def trials_by_cell(ablation: Ablation) -> dict[tuple[str, str, str], list[Trial]]:
    """By `key_of`."""
    found: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in ablation.trials:
        found.setdefault(key_of(trial), []).append(trial)
    return found


def metrics_of(ablation: Ablation, estimate: Estimate | None) -> Metrics | None:
    """Of the same cell."""
    return next((each for each in ablation.metrics if estimate and key_of(each) == key_of(estimate)), None)


def choosable(ablation: Ablation) -> list[Estimate]:
    """Of the named experiments, or of single layers where there are none; without controls."""
    experiments = set(named_experiments(ablation) or ablation.single_layers)
    return [each for each in ablation.estimates if each.control == NO_CONTROL and each.experiment in experiments]


def chosen(ablation: Ablation) -> Estimate | None:
    """The cell with the highest validation accuracy, the mean over its seeds; of equals the first.

    Test has no say in it, so that its accuracy there is not flattered by having been looked for.
    """
    trials = trials_by_cell(ablation)
    cells = [each for each in choosable(ablation) if key_of(each) in trials]
    return max(cells, key=lambda each: _validation(trials[key_of(each)]), default=None)


def _validation(trials: Sequence[Trial]) -> float:
    return statistics.fmean(trial.validation_accuracy for trial in trials)


def in_order(ablation: Ablation, layers: Sequence[str]) -> list[str]:
    """Layers as the encoder has them."""
    place = {
        layer: number for number, layer in enumerate(ablation.single_layers or [f.layer for f in ablation.features])
    }
    return sorted(layers, key=lambda layer: (place.get(layer, len(place)), layer))
