"""What an ablation's figures show, in words: a caption for everybody, and the picture's content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fovcache.probes.result import RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, ArmComparison, Difference, Estimate

from .cells import choosable, chosen, controls, metrics_of, named_experiments, representations
from .confusion import shares
from .difference_forest import LEVEL, Groups, is_told, shown_arms, shown_differences
from .forest import shown_groups
from .heat_map import shown_columns, shown_layers
from .names import shown
from .numbers import ABSENT, count, digits, half_interval, interval, p_value, percent, points

_MAX_SPOKEN = 60
_MAX_MISTAKES = 6
_SMALL = 0.001
"""A smallest p below is no hindrance, and not told."""


def forest_caption(ablation: Ablation) -> str:
    """How to read the forest plot."""
    text = "Test accuracy of each experiment, by representation, the best first: mean of the seeds and 95 % interval. "
    text += f"Features: those that are effective. {sizes(ablation)}"
    kinds = controls(ablation, named_experiments(ablation))
    if kinds:
        text += "Hollow: controls. "
    if RANDOM_LAYERS in kinds:
        text += "A named set of layers says something where it leaves as many random ones behind. "
    if SHUFFLED_LABELS in kinds:
        text += "With shuffled labels nothing can be learnt: these belong at the dashed line or below. "
    hidden = len(representations(ablation)) - len(shown_groups(ablation))
    return text + (f"{count(hidden)} more representations are in the table alone." if hidden > 0 else "")


def sizes(ablation: Ablation) -> str:
    """How many samples heads are fitted on and scored on."""
    found = {(trial.num_train, trial.num_validation, trial.num_test) for trial in ablation.trials}
    if not found:
        return ""
    train, validation, test = (_range(numbers) for numbers in zip(*found, strict=True))
    return f"Heads are fitted on {train} samples, chosen on {validation} and scored on {test}. "


def _range(numbers: Iterable[int]) -> str:
    every = sorted(set(numbers))
    return count(every[0]) if len(every) == 1 else f"{count(every[0])} to {count(every[-1])}"


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


def differences_caption(ablation: Ablation) -> str:
    """How to read the forest of differences."""
    return _differences_caption(ablation.differences, shown_differences(ablation), "differences of the ablation")


def arms_caption(arms: Sequence[ArmComparison]) -> str:
    """How to read the forest of arms."""
    every = [each for arm in arms for each in arm.differences]
    return _differences_caption(every, shown_arms(arms), "differences of arms")


def _differences_caption(differences: Sequence[Difference], groups: Groups, which: str) -> str:
    text = "Differences of test accuracies, the same seeds or test items on both sides: mean and 95 % interval. "
    if any(each.p_holm is not None for each in differences):
        text += (
            f"Filled: p below {LEVEL:g} by Holm's correction for all {which} together; the intervals are of one "
            "difference each, and not corrected. "
        )
    hidden = len(differences) - sum(len(group) for _, group in groups)
    text += f"{count(hidden)} more differences are in the table alone. " if hidden > 0 else ""
    return text + _tests(differences)


def _tests(differences: Sequence[Difference]) -> str:
    """How the p of differences are made, and the smallest that so many pairs could give."""
    found = dict.fromkeys(each.test for each in differences if each.test)
    text = f"p: {'; '.join(shown(each, 400) for each in found)}. " if found else ""
    least = max((each.smallest_p for each in differences if each.smallest_p is not None), default=0.0)
    if least >= _SMALL:
        text += f"No exact test of so few pairs can give a p below {digits(least, 2)}. "
    if any(each.effect_size is not None for each in differences):
        text += "Effect: mean difference in standard deviations of a single pair's (Cohen's d_z). "
    return (text + _to_resolve(differences)).strip()


def _to_resolve(differences: Sequence[Difference]) -> str:
    """What it takes to tell a point from none, of the difference whose interval is of middling width."""
    told = [(each.ci95[1] - each.ci95[0], each) for each in differences if each.ci95 and each.to_resolve]
    if not told:
        return ""
    _, middle = sorted(told, key=lambda each: each[0])[len(told) // 2]
    what = f"{shown(middle.representation, 40)} of {shown(middle.experiment, 40)}"
    return f"To resolve one point, where the interval is of middling width ({what}): {shown(middle.to_resolve, 400)}."


def differences_alt(ablation: Ablation) -> str:
    """The content of the forest of differences."""
    return _differences_alt(shown_differences(ablation))


def arms_alt(arms: Sequence[ArmComparison]) -> str:
    """The content of the forest of arms."""
    return _differences_alt(shown_arms(arms))


def _differences_alt(groups: Groups) -> str:
    every = [_spoken(title, name, each) for title, group in groups for name, each in group]
    more = f"; and {count(len(every) - _MAX_SPOKEN)} more" if len(every) > _MAX_SPOKEN else ""
    return f"Differences with 95 % intervals. {'; '.join(every[:_MAX_SPOKEN])}{more}."


def _spoken(title: str, name: str, difference: Difference) -> str:
    told = ", told from none" if is_told(difference) else ""
    return (
        f"{shown(name, 80)}, {shown(title, 80)}: "
        f"{points(difference.mean, sign=True)} points ({interval(difference.ci95, sign=True)}, corrected p "
        f"{p_value(difference.p_holm)}{told})"
    )


def confusion_caption(ablation: Ablation) -> str:
    """How to read the confusion of the cell that validation chooses."""
    return f"{cell_confusion_caption(chosen(ablation), ablation)} {choice(ablation)}"


def cell_confusion_caption(cell: Estimate | None, ablation: Ablation) -> str:
    """How to read the confusion of a cell."""
    if cell is None:
        return ""
    return (
        f"Confusion of {_named(cell)}: of each class's test samples (row) the percentage that was answered with a "
        f"class (column), {_over(cell)}. Right: accuracy of each class with its 95 % interval; dashed is chance."
    )


def choice(ablation: Ablation) -> str:
    """How the cell was chosen that is shown more closely than others."""
    num = len(choosable(ablation))
    return f"Of {count(num)} cells it has the highest validation accuracy; test had no say in that." if num > 1 else ""


def confusion_alt(ablation: Ablation) -> str:
    """The content of the confusion of the cell that validation chooses."""
    return cell_confusion_alt(chosen(ablation), ablation)


def cell_confusion_alt(cell: Estimate | None, ablation: Ablation) -> str:
    """A confusion's content: the mistakes that are made most."""
    metrics = metrics_of(ablation, cell)
    if metrics is None or cell is None:
        return ""
    mistakes = [
        (share, row, column)
        for row, line in enumerate(shares(metrics.confusion))
        for column, share in enumerate(line)
        if row != column and share > 0
    ]
    mistakes.sort(key=lambda each: -each[0])
    said = "; ".join(
        f"{shown(ablation.classes[row], 40)} as {shown(ablation.classes[column], 40)} {percent(share)}"
        for share, row, column in mistakes[:_MAX_MISTAKES]
    )
    what = f"Confusion of {count(len(ablation.classes))} classes, {_named(cell)}. "
    return what + (f"Most often taken for another: {said}." if said else "No class is taken for another.")


def reliability_caption(ablation: Ablation) -> str:
    """How to read the reliability diagram."""
    cell = chosen(ablation)
    metrics = metrics_of(ablation, cell)
    if cell is None or metrics is None or metrics.calibration_error is None:
        return ""
    return (
        f"Reliability of {_named(cell)}, {_over(cell)}: how often answers are right that are given with so much "
        "confidence (on the dashed line they are as often as they say; hollow: fewer than ten answers), and how many "
        f"there are. Expected calibration error {points(metrics.calibration_error)} points, in 15 bins of equal width "
        "(Guo et al. 2017)."
    )


def reliability_alt(ablation: Ablation) -> str:
    """The reliability diagram's content."""
    metrics = metrics_of(ablation, chosen(ablation))
    bins = [each for each in metrics.reliability if each[0]] if metrics else []
    said = "; ".join(f"{percent(mean)} sure, {percent(right)} right ({count(num)})" for num, mean, right in bins)
    return f"Answers by confidence, how often they are right, and how many there are: {said}."


def _named(cell: Estimate) -> str:
    return f"{shown(cell.representation, 40)} of {shown(cell.experiment, 40)}"


def _over(cell: Estimate) -> str:
    return f"{count(cell.num_seeds)} seeds together" if cell.num_seeds > 1 else "one seed"
