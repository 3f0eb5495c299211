"""An ablation as tables of texts: what the command prints and its page holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, Difference, Estimate
from ..statistics.leaks import ALARM, shuffled_cells

_NONE = "–"
_LEVEL = 0.05
"""Differences with a corrected p below are found."""
_SMALL = 0.001
"""A smallest p below is no hindrance, and not told."""


_MAX_FEATURES = 40
"""Rows of the table of features; `ablation.json` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """Cells by rows."""

    title: str
    """What it shows."""
    columns: tuple[str, ...]
    """Heads; those that start with `>` are of numbers."""
    rows: tuple[tuple[str, ...], ...]
    """Each as long as columns."""


def experiments_table(ablation: Ablation) -> TextTable:
    """One row for each representation of each experiment: accuracy, interval, controls, chance, numbers a sample."""
    columns = [">test accuracy", "95 % interval", ">shuffled labels", ">random layers", ">chance", ">layers"]
    rows = []
    for experiment in ablation.experiments:
        for representation in representations(ablation):
            found = ablation.estimate(representation, experiment)
            if found is None:
                continue
            controls = [
                ablation.estimate(representation, experiment, name) for name in (SHUFFLED_LABELS, RANDOM_LAYERS)
            ]
            numbers = f"{found.num_features:,}", f"{found.num_effective:,}"
            shown = (accuracy(found), interval(found), *map(accuracy, controls), f"{found.chance:.3f}")
            rows.append((experiment, representation, *shown, str(found.num_layers), *numbers))
    return TextTable(
        title="Experiments",
        columns=("experiment", "representation", *columns, ">numbers", ">that vary"),
        rows=tuple(rows),
    )


DIFFERENCE_COLUMNS = (">difference", "95 % interval", ">p", ">p, Holm", ">d", ">seeds")


def differences_table(ablation: Ablation) -> TextTable:
    """One row for each paired difference."""
    rows = []
    for each in ablation.differences:
        other = f"{each.other}, random layers" if each.other_control == RANDOM_LAYERS else each.other
        rows.append((each.experiment, other, each.representation, *difference_cells(each)))
    columns = ("experiment", "less", "representation", *DIFFERENCE_COLUMNS)
    return TextTable(title="Differences, paired by seed", columns=columns, rows=tuple(rows))


def difference_cells(difference: Difference) -> tuple[str, ...]:
    """Its numbers, under DIFFERENCE_COLUMNS."""
    bounds = difference.ci95
    shown = _NONE if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"
    size = _NONE if difference.effect_size is None else f"{difference.effect_size:+.2f}"
    numbers = probability(difference.p), probability(difference.p_holm)
    return f"{difference.mean:+.3f}", shown, *numbers, size, str(difference.num_seeds)


def layers_table(ablation: Ablation, *, intervals: bool) -> TextTable:
    """One row for each layer by itself, one column for each representation."""
    names = representations(ablation)
    rows = []
    for layer in ablation.single_layers:
        found = [ablation.estimate(name, layer) for name in names]
        cells = (f"{accuracy(each)} ({interval(each)})" if intervals and each else accuracy(each) for each in found)
        rows.append((layer, *cells))
    return TextTable(
        title="Test accuracy of each layer by itself",
        columns=("layer", *(f">{name}" for name in names)),
        rows=tuple(rows),
    )


def features_table(ablation: Ablation) -> TextTable:
    """Where the numbers of each layer came from."""
    rows = [
        (each.encoder, each.layer, each.pool, " × ".join(map(str, each.row_shape)), each.weights, each.feature[:12])
        for each in ablation.features[:_MAX_FEATURES]
    ]
    num_more = len(ablation.features) - len(rows)
    if num_more:
        rows.append(("…", f"and {num_more:,} more", "", "", "", ""))
    columns = ("encoder", "layer", "pool", "row shape", "weights", "feature")
    return TextTable(title="Features", columns=columns, rows=tuple(rows))


def sentences(ablation: Ablation) -> Iterator[str]:
    """What the tables are of, and how to read them."""
    counts = ablation.class_counts
    groups = ablation.protocol["num_groups"]
    yield (
        f"{ablation.num_samples:,} samples of {ablation.dataset} in {len(counts)} classes of {min(counts):,} to "
        f"{max(counts):,}" + (f" and {groups:,} groups" if groups else "")
    )
    seeds, split = ablation.protocol["seeds"], ablation.protocol["split"]
    trials = [trial for trial in ablation.trials if trial.control == NO_CONTROL]
    if trials:
        sizes = f"{trials[0].num_train:,} train, {trials[0].num_validation:,} validation, {trials[0].num_test:,} test"
        grouped = ", a group on one side" if split["group"] else ""
        yield f"{len(seeds)} seeds; a seed decides {ablation.protocol['seed_varies']} ({sizes}{grouped})"
    yield f"head: {ablation.protocol['head']}, its settings chosen on validation; test was scored once"
    if ablation.estimand:
        yield f"intervals are of {ablation.estimand}, by {ablation.interval}"
    yield from _difference_sentences(ablation.differences)
    yield from _control_sentences(ablation)


def _difference_sentences(differences: Sequence[Difference]) -> Iterator[str]:
    tested = [each for each in differences if each.p_holm is not None]
    if tested:
        found = sum(each.p_holm is not None and each.p_holm < _LEVEL for each in tested)
        yield (
            f"differences: {found} of {len(tested)} are found at p < {_LEVEL:.2f} after Holm's correction for being "
            f"{len(tested)}; their intervals are not corrected; p is by {_most([each.test for each in tested])}"
        )
    sized = [each for each in differences if each.effect_size is not None]
    if sized:
        yield (
            "effect size d is Cohen's d_z, the mean difference in standard deviations of a single pair's; a pair is a "
            "seed, or an answer to a test item where all seeds have the same test"
        )
    smallest = [each.smallest_p for each in differences if each.smallest_p is not None]
    if smallest and max(smallest) > _SMALL:
        pairs = max(each.num_seeds for each in differences)
        yield f"with {pairs} pairs no exact paired test can give a p below {max(smallest):.3g}"
    wide = sorted(
        (each for each in differences if each.to_resolve and each.ci95 is not None),
        key=lambda each: 0.0 if each.ci95 is None else each.ci95[1] - each.ci95[0],
    )
    if wide:
        middle = wide[len(wide) // 2]
        less = "its random layers" if middle.other_control == RANDOM_LAYERS else middle.other
        yield (
            f"to resolve a difference, such as {middle.experiment} less {less} by {middle.representation}, which is of "
            f"middling width: {middle.to_resolve}"
        )


def _most(texts: Sequence[str]) -> str:
    return Counter(texts).most_common(1)[0][0]


def _control_sentences(ablation: Ablation) -> Iterator[str]:
    cells = shuffled_cells(ablation.trials, len(ablation.classes))
    if cells:
        above = sum(cell.p_holm < ALARM for cell in cells)
        yield (
            f"shuffled labels: {above} of {len(cells)} cells score above chance, which would be a leak (one-sided t "
            f"over seeds; the smallest p after Holm's correction is {probability(min(cell.p_holm for cell in cells))})"
        )


def representations(ablation: Ablation) -> list[str]:
    """Their names, in the order in which they were asked for."""
    return list(dict.fromkeys(each.representation for each in ablation.estimates))


def accuracy(estimate: Estimate | None) -> str:
    """`0.812`, or a dash for what was not run."""
    return _NONE if estimate is None else f"{estimate.mean:.3f}"


def probability(p: float | None) -> str:
    """`.012`, `<.001`, or a dash for none."""
    return _NONE if p is None else "<.001" if p < 0.001 else "1" if p > 0.9995 else f"{p:.3f}".removeprefix("0")


def interval(estimate: Estimate) -> str:
    """`0.780 to 0.844`, or a dash where there is none."""
    return _NONE if estimate.ci95 is None else f"{estimate.ci95[0]:.3f} to {estimate.ci95[1]:.3f}"


def failures_table(ablation: Ablation) -> TextTable:
    """Cells without a trial."""
    rows = [
        (each.representation, each.experiment, each.control, str(each.seed), each.reason) for each in ablation.failures
    ]
    return TextTable(
        title="Failed", columns=("representation", "experiment", "control", ">seed", "reason"), rows=tuple(rows)
    )


def shown_tables(ablation: Ablation, *, intervals: bool) -> Sequence[TextTable]:
    """Those with rows."""
    every = (
        experiments_table(ablation),
        differences_table(ablation),
        layers_table(ablation, intervals=intervals),
        features_table(ablation),
        failures_table(ablation),
    )
    return [table for table in every if table.rows]
