"""What an ablation's figures show, in words: a caption for everybody, and the picture's content."""

from __future__ import annotations

from fovcache.probes.result import RANDOM_LAYERS, SHUFFLED_LABELS, Ablation

from .cells import controls, named_experiments, representations
from .forest import shown_groups
from .heat_map import shown_columns, shown_layers
from .names import shown
from .numbers import ABSENT, count, half_interval, interval, percent, points

_MAX_SPOKEN = 60


def forest_caption(ablation: Ablation) -> str:
    """How to read the forest plot."""
    text = "Test accuracy of each experiment, by representation, the best first: mean of the seeds and 95 % interval. "
    kinds = controls(ablation, named_experiments(ablation))
    if kinds:
        text += "Hollow: controls. "
    if RANDOM_LAYERS in kinds:
        text += "A named set of layers says something where it leaves as many random ones behind. "
    if SHUFFLED_LABELS in kinds:
        text += "With shuffled labels nothing can be learnt: these belong at the dashed line or below. "
    hidden = len(representations(ablation)) - len(shown_groups(ablation))
    return text + (f"{count(hidden)} more representations are in the table alone." if hidden > 0 else "")


def forest_alt(ablation: Ablation) -> str:
    """The forest plot's content."""
    cells = [each for _, found in shown_groups(ablation) for each in found]
    parts = [
        f"{shown(each.representation, 40)} of {shown(each.experiment, 40)} {percent(each.mean)} "
        f"({interval(each.ci95)}, chance {points(each.chance)})"
        for each in cells[:_MAX_SPOKEN]
    ]
    more = f"; and {count(len(cells) - _MAX_SPOKEN)} more" if len(cells) > _MAX_SPOKEN else ""
    return f"Estimates with 95 % intervals. {'; '.join(parts)}{more}."


def heat_map_caption(ablation: Ablation) -> str:
    """How to read the heat map."""
    text = (
        "Test accuracy of each layer by itself, in percent, ± half of its 95 % interval; layers from the input down, "
        f"colours from chance to the highest; {ABSENT} was not run. Differences within the intervals mean little."
    )
    hidden = len(ablation.single_layers) - len(shown_layers(ablation))
    return text + (f" {count(hidden)} more layers are in the table alone." if hidden > 0 else "")


def heat_map_alt(ablation: Ablation) -> str:
    """The heat map's content: the best layer of each representation."""
    parts = []
    for name in shown_columns(ablation):
        found = [each for layer in shown_layers(ablation) if (each := ablation.estimate(name, layer))]
        best = max(found, key=lambda each: each.mean)
        reached = f"{percent(best.mean)} {half_interval(best.ci95)}".strip()
        parts.append(f"{shown(name, 40)}: highest {reached} at {shown(best.experiment, 40)}")
    return f"Accuracy of {count(len(shown_layers(ablation)))} layers by representation. {'; '.join(parts)}."
