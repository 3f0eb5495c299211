"""The grid: every representation × experiment × control × seed that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .config import AblationConfig, RepresentationChoice
from .controls import random_layers
from .layer_sets import LayerSets
from .result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One trial that is to be run."""

    representation: RepresentationChoice
    """What is computed of each layer."""
    experiment: str
    """The name of a set of layers, or a single layer's."""
    control: str
    """One of CONTROLS."""
    seed: int
    """Of the split, of shuffled labels and of random layers."""
    layers: tuple[str, ...]
    """What is concatenated, sorted."""

    def __str__(self) -> str:
        control = "" if self.control == NO_CONTROL else f", {self.control}"
        return f"{self.representation.label} of {self.experiment}{control}, seed {self.seed}"


def grid(config: AblationConfig, sets: LayerSets) -> Iterator[Cell]:
    """All cells, in the order in which results list them."""
    for representation in config.representations:
        for experiment in dict.fromkeys((*sets.experiments, *sets.single)):
            for control in _controls(config, sets, experiment):
                for seed in config.seeds:
                    layers = sets.layers_of(experiment)
                    if control == RANDOM_LAYERS:
                        layers = random_layers(tuple(sets.layers), len(layers), seed)
                    yield Cell(
                        representation=representation,
                        experiment=experiment,
                        control=control,
                        seed=seed,
                        layers=layers,
                    )


def _controls(config: AblationConfig, sets: LayerSets, experiment: str) -> Iterator[str]:
    yield NO_CONTROL
    if config.controls.shuffled_labels:
        yield SHUFFLED_LABELS
    if config.controls.random_layers and experiment in sets.experiments and sets.is_proper_subset(experiment):
        yield RANDOM_LAYERS
