"""The tables of an ablation: estimates, controls, where features came from, what failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, Difference, Estimate

from . import numbers
from .cells import estimates, in_order, less_control, named_experiments, representations
from .names import listed
from .table import ABSENT, Cell, Table, accuracy, count, digest, table, text

_MAX_FAILURES = 100
_MAX_LAYERS = 24
_ESTIMATES = ("representation", "<experiment", "layers", "features", "effective", "seeds", "accuracy",
              "95 % interval", "sd", "chance")  # fmt: skip
_READING = (
    "Accuracy is the mean of the seeds' test accuracies; effective features are those that are neither constant on "
    "train nor equal to another; sd is over seeds; chance is always answering train's most frequent class."
)


def ablation_tables(ablation: Ablation, prefix: str = "") -> dict[str, Table]:
    """By name: `experiments`, `estimates`, `controls`, `differences`, `layers`, `features`, `failures`; empty ones too.

    Their ids begin with `prefix`.
    """
    experiments = named_experiments(ablation)
    return {
        "experiments": _experiments(ablation, f"{prefix}experiments"),
        "estimates": _estimates(ablation, f"{prefix}estimates", f"Estimates. {_READING}", experiments),
        "controls": _controls(ablation, f"{prefix}controls", experiments),
        "differences": _differences(ablation, f"{prefix}differences"),
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


def _estimates(ablation: Ablation, id: str, caption: str, experiments: Sequence[str]) -> Table:
    return table(id, caption, _ESTIMATES, (_estimate_row(each) for each in estimates(ablation, experiments)))


def _estimate_row(estimate: Estimate) -> list[Cell]:
    return [
        text(estimate.representation),
        text(estimate.experiment),
        count(estimate.num_layers),
        count(estimate.num_features),
        count(estimate.num_effective),
        count(estimate.num_seeds),
        accuracy(estimate.mean),
        _interval(estimate),
        Cell(text=numbers.points(estimate.sd), value=estimate.sd) if estimate.num_seeds > 1 else ABSENT,
        accuracy(estimate.chance),
    ]


def _layers(ablation: Ablation, id: str) -> Table:
    """Estimates of single layers; with their shuffled labels, where those were run."""
    shuffled = estimates(ablation, ablation.single_layers, SHUFFLED_LABELS)
    columns = (*_ESTIMATES, *(("shuffled labels", "95 % interval") if shuffled else ()))
    rows = []
    for each in estimates(ablation, ablation.single_layers):
        control = ablation.estimate(each.representation, each.experiment, SHUFFLED_LABELS)
        beside = [accuracy(control.mean) if control else ABSENT, _interval(control)] if shuffled else []
        rows.append([*_estimate_row(each), *beside])
    return table(id, f"Each layer by itself. {_READING}", columns, rows)


def _interval(estimate: Estimate | None) -> Cell:
    return ABSENT if estimate is None else Cell(text=numbers.interval(estimate.ci95))


def _controls(ablation: Ablation, id: str, experiments: Sequence[str]) -> Table:
    caption = (
        "Random layers: as many layers as the experiment has, drawn anew for each seed; the difference is the "
        "experiment's accuracy less theirs, seed by seed, in points. Shuffled labels: the same with the labels of "
        "all samples permuted, which nothing can predict."
    )
    columns = ("representation", "<experiment", "accuracy", "random layers", "95 % interval", "difference",
               "95 % interval", "shuffled labels", "95 % interval", "chance")  # fmt: skip
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
            accuracy(random.mean) if random else ABSENT,
            _interval(random),
            *_difference(less_control(ablation, each)),
            accuracy(shuffled.mean) if shuffled else ABSENT,
            _interval(shuffled),
            accuracy(each.chance),
        ]


def _differences(ablation: Ablation, id: str) -> Table:
    between = [each for each in ablation.differences if each.other_control == NO_CONTROL]
    caption = "Differences between experiments, seed by seed, in points; not corrected for how many there are."
    columns = ("representation", "<experiment", "<less", "seeds", "difference", "95 % interval")
    rows = (
        [
            text(each.representation),
            text(each.experiment),
            text(each.other),
            count(each.num_seeds),
            *_difference(each),
        ]
        for name in representations(ablation)
        for each in between
        if each.representation == name
    )
    return table(id, caption, columns, rows)


def _difference(difference: Difference | None) -> tuple[Cell, Cell]:
    """Mean and interval."""
    if difference is None:
        return ABSENT, ABSENT
    mean = Cell(text=numbers.points(difference.mean, sign=True), value=difference.mean)
    return mean, Cell(text=numbers.interval(difference.ci95, sign=True))


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
    shown = ablation.failures[:_MAX_FAILURES]
    caption = "Trials that could not be run; running the same command again tries them again."
    if len(shown) < len(ablation.failures):
        caption += f" The first {len(shown)} of {numbers.count(len(ablation.failures))}."
    columns = ("representation", "<experiment", "<control", "seed", "<reason")
    rows = (
        [text(each.representation), text(each.experiment), text(each.control), count(each.seed), text(each.reason)]
        for each in shown
    )
    return table(id, caption, columns, rows)
