"""An ablation as tables of texts: what the command prints and its page holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .intervals import smallest_p
from .result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, Estimate

_NONE = "–"


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


def differences_table(ablation: Ablation) -> TextTable:
    """One row for each paired difference."""
    rows = []
    for each in ablation.differences:
        other = f"{each.other}, random layers" if each.other_control == RANDOM_LAYERS else each.other
        shown = _NONE if each.ci95 is None else f"{each.ci95[0]:+.3f} to {each.ci95[1]:+.3f}"
        rows.append((each.experiment, other, each.representation, f"{each.mean:+.3f}", shown, str(each.num_seeds)))
    columns = ("experiment", "less", "representation", ">difference", "95 % interval", ">seeds")
    return TextTable(title="Differences, paired by seed", columns=columns, rows=tuple(rows))


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
        for each in ablation.features
    ]
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
    if ablation.differences:
        num_seeds = max(each.num_seeds for each in ablation.differences)
        yield (
            f"the {len(ablation.differences)} intervals of differences are not corrected for being so many; with "
            f"{num_seeds} seeds no exact paired test can give a p below {smallest_p(num_seeds):.3g}"
        )
    yield from _control_sentences(ablation)


def _control_sentences(ablation: Ablation) -> Iterator[str]:
    shuffled = [each for each in ablation.estimates if each.control == SHUFFLED_LABELS and each.ci95 is not None]
    if shuffled:
        above = sum(each.ci95 is not None and each.ci95[0] > each.chance for each in shuffled)
        yield (
            f"shuffled labels: {above} of {len(shuffled)} intervals lie above chance; of such intervals about "
            f"{0.025 * len(shuffled):.1f} do by accident, and many more would be a leak from train to test"
        )


def representations(ablation: Ablation) -> list[str]:
    """Their names, in the order in which they were asked for."""
    return list(dict.fromkeys(each.representation for each in ablation.estimates))


def accuracy(estimate: Estimate | None) -> str:
    """`0.812`, or a dash for what was not run."""
    return _NONE if estimate is None else f"{estimate.mean:.3f}"


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
