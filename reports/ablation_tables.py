"""The tables of an ablation: estimates, controls, where features came from, what failed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from fovcache.probes.result import (
    NO_CONTROL,
    RANDOM_LAYERS,
    SHUFFLED_LABELS,
    Ablation,
    ArmComparison,
    Difference,
    Estimate,
    Trial,
)

from . import numbers
from .baseline import baseline_accuracy, linear_baseline
from .cells import estimates, in_order, key_of, named_experiments, trials_by_cell
from .difference_forest import compared, other_name
from .metric_tables import classes_table, metrics_table
from .names import listed, shown
from .table import ABSENT, Cell, Table, accuracy, count, digest, table, text

_MAX_FAILURES = 100
_MAX_LAYERS = 24
_MAX_NOTES = 3
_ESTIMATES = ("representation", "<experiment", "features", "effective", "train", "test", "seeds", "accuracy",
              "95 % interval", "sd", "chance")  # fmt: skip
_DIFFERENCE = ("seeds", "difference", "95 % interval", "p", "p (Holm)", "effect")
_READING = (
    "Accuracy is the mean of the seeds' test accuracies; effective features are those that are neither constant on "
    "train nor equal to another; train and test are samples that a head was fitted on and scored on; sd is over "
    "seeds; chance is always answering train's most frequent class."
)


def ablation_tables(ablation: Ablation, prefix: str = "", arms: Sequence[ArmComparison] = ()) -> dict[str, Table]:
    """By name: `experiments`, `estimates`, `metrics`, `classes`, `controls`, `differences`, `arms`, `layers`,
    `features`, `failures`; empty ones too.

    Their ids begin with `prefix`.
    """
    experiments = named_experiments(ablation)
    return {
        "experiments": _experiments(ablation, f"{prefix}experiments"),
        "estimates": _estimates(ablation, f"{prefix}estimates", experiments, arms),
        "metrics": metrics_table(ablation, f"{prefix}metrics"),
        "classes": classes_table(ablation, f"{prefix}classes"),
        "controls": _controls(ablation, f"{prefix}controls", experiments),
        "differences": _differences(ablation, f"{prefix}differences"),
        "arms": arms_table(arms, f"{prefix}arms"),
        "layers": _layers(ablation, f"{prefix}layers"),
        "features": _features(ablation, f"{prefix}features"),
        "failures": _failures(ablation, f"{prefix}failures"),
    }


def _experiments(ablation: Ablation, id: str) -> Table:
    experiments = {name: ablation.experiments[name] for name in named_experiments(ablation)}
    rows = (
        [text(name), count(len(layers)), Cell(text=listed(in_order(ablation, layers), _MAX_LAYERS))]
        for name, layers in experiments.items()
    )
    return table(
        id, "Experiments: sets of layers whose numbers are put side by side.", ("experiment", "layers", "<which"), rows
    )


def _estimates(ablation: Ablation, id: str, experiments: Sequence[str], arms: Sequence[ArmComparison]) -> Table:
    trials = trials_by_cell(ablation)
    baseline = linear_baseline(ablation, arms)
    caption = f"Estimates. {_READING}"
    if baseline is not None:
        caption += f" Linear: the accuracy of arm {shown(baseline.arm)}, whose head is linear."
    columns = (*_ESTIMATES, *(("linear",) if baseline else ()))
    rows = []
    for each in estimates(ablation, experiments):
        row = _estimate_row(each, trials.get(key_of(each), ()))
        beside = baseline_accuracy(baseline, each) if baseline else None
        rows.append([*row, *([ABSENT if beside is None else accuracy(beside)] if baseline else [])])
    return table(id, caption, columns, rows)


def _estimate_row(estimate: Estimate, trials: Sequence[Trial]) -> list[Cell]:
    return [
        text(estimate.representation),
        text(estimate.experiment, _noted(trials)),
        count(estimate.num_features),
        count(estimate.num_effective),
        *(_median(trials, name) for name in ("num_train", "num_test")),
        count(estimate.num_seeds),
        accuracy(estimate.mean),
        _interval(estimate),
        Cell(text=numbers.points(estimate.sd), value=estimate.sd) if estimate.num_seeds > 1 else ABSENT,
        accuracy(estimate.chance),
    ]


def _median(trials: Sequence[Trial], name: str) -> Cell:
    return count(round(statistics.median(getattr(trial, name) for trial in trials))) if trials else ABSENT


def _noted(trials: Sequence[Trial]) -> str:
    """What trials say of themselves: `2 of 5 trials: not converged after 1000 iterations`."""
    said = Counter(note for trial in trials for note in trial.notes)
    return "; ".join(f"{num} of {len(trials)} trials: {shown(note)}" for note, num in said.most_common(_MAX_NOTES))


def _layers(ablation: Ablation, id: str) -> Table:
    """Estimates of single layers; with their shuffled labels, where those were run."""
    shuffled = estimates(ablation, ablation.single_layers, SHUFFLED_LABELS)
    columns = (*_ESTIMATES, *(("shuffled labels", "95 % interval") if shuffled else ()))
    trials = trials_by_cell(ablation)
    rows = []
    for each in estimates(ablation, ablation.single_layers):
        control = ablation.estimate(each.representation, each.experiment, SHUFFLED_LABELS)
        beside = [accuracy(control.mean) if control else ABSENT, _interval(control)] if shuffled else []
        rows.append([*_estimate_row(each, trials.get(key_of(each), ())), *beside])
    return table(id, f"Each layer by itself. {_READING}", columns, rows)


def _interval(estimate: Estimate | None) -> Cell:
    return ABSENT if estimate is None else Cell(text=numbers.interval(estimate.ci95))


def _controls(ablation: Ablation, id: str, experiments: Sequence[str]) -> Table:
    caption = (
        "Random layers: as many layers as the experiment has, drawn anew for each seed. Shuffled labels: the same "
        "with the labels of train and validation permuted, from which nothing can be learnt."
    )
    columns = ("representation", "<experiment", "accuracy", "95 % interval", "random layers", "95 % interval",
               "shuffled labels", "95 % interval", "chance")  # fmt: skip
    return table(id, caption, columns, _control_rows(ablation, experiments))


def _control_rows(ablation: Ablation, experiments: Sequence[str]) -> Iterator[list[Cell]]:
    for each in estimates(ablation, experiments, NO_CONTROL):
        cell = each.representation, each.experiment
        random, shuffled = (ablation.estimate(*cell, control) for control in (RANDOM_LAYERS, SHUFFLED_LABELS))
        if random is None and shuffled is None:
            continue
        yield [
            text(each.representation),
            text(each.experiment),
            accuracy(each.mean),
            _interval(each),
            accuracy(random.mean) if random else ABSENT,
            _interval(random),
            accuracy(shuffled.mean) if shuffled else ABSENT,
            _interval(shuffled),
            accuracy(each.chance),
        ]


def _differences(ablation: Ablation, id: str) -> Table:
    caption = (
        "Differences in points, of the same seeds or test items; intervals are not corrected for how many there are, "
        "p (Holm) is, for all differences of the ablation."
    )
    rows = (
        [text(each.representation), text(each.experiment), text(other_name(each)), *_difference(each)]
        for group in compared(ablation)
        for each in group
    )
    return table(id, caption, ("representation", "<experiment", "<less", *_DIFFERENCE), rows)


def arms_table(arms: Sequence[ArmComparison], id: str) -> Table:
    """One row for each difference of an arm from the base."""
    caption = (
        "Arms: each is the ablation with one setting changed; its accuracy less the base's, in points, of the same "
        "seeds or test items. p (Holm) is for all differences of all arms."
    )
    rows = (
        [text(arm.arm), text(each.representation), text(each.experiment), *_difference(each)]
        for arm in arms
        for each in arm.differences
    )
    return table(id, caption, ("arm", "<representation", "<experiment", *_DIFFERENCE), rows)


def _difference(each: Difference) -> list[Cell]:
    return [
        count(each.num_seeds),
        Cell(text=numbers.points(each.mean, sign=True), value=each.mean),
        Cell(text=numbers.interval(each.ci95, sign=True)),
        _p(each.p),
        _p(each.p_holm),
        _effect(each),
    ]


def _p(value: float | None) -> Cell:
    return Cell(text=numbers.p_value(value), value=value)


def _effect(difference: Difference) -> Cell:
    value = difference.effect_size
    return ABSENT if value is None else Cell(text=numbers.effect(value), value=value)


def _features(ablation: Ablation, id: str) -> Table:
    columns = ("encoder", "<layer", "<pool", "<row shape", "<weights", "<feature", "<recipe")
    rows = (
        [
            text(each.encoder),
            text(each.layer),
            text(each.pool),
            Cell(text=" × ".join(map(str, each.row_shape))),
            text(each.weights),
            digest(each.feature),
            digest(each.recipe),
        ]
        for each in ablation.features
    )
    return table(id, "Cached features that the numbers were computed from.", columns, rows)


def _failures(ablation: Ablation, id: str) -> Table:
    first = ablation.failures[:_MAX_FAILURES]
    caption = "Trials that could not be run; running the same command again tries them again."
    if len(first) < len(ablation.failures):
        caption += f" The first {len(first)} of {numbers.count(len(ablation.failures))}."
    columns = ("representation", "<experiment", "<control", "seed", "<reason")
    rows = (
        [text(each.representation), text(each.experiment), text(each.control), count(each.seed), text(each.reason)]
        for each in first
    )
    return table(id, caption, columns, rows)
