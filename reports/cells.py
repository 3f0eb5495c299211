"""The cells of an ablation in the order in which figures and tables show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, Difference, Estimate

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


def less_control(ablation: Ablation, estimate: Estimate) -> Difference | None:
    """An experiment's accuracy less that of as many random layers."""
    cell = estimate.representation, estimate.experiment
    found = (
        each
        for each in ablation.differences
        if (each.representation, each.experiment) == cell and each.other_control == RANDOM_LAYERS
    )
    return next(found, None)


def in_order(ablation: Ablation, layers: Sequence[str]) -> list[str]:
    """Layers as the encoder has them."""
    place = {
        layer: number for number, layer in enumerate(ablation.single_layers or [f.layer for f in ablation.features])
    }
    return sorted(layers, key=lambda layer: (place.get(layer, len(place)), layer))
