"""Paired differences of an ablation: their intervals, p-values, effect sizes, and what it takes to resolve a point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..result import NO_CONTROL, RANDOM_LAYERS, Difference, Trial
from ..splits import GIVEN, INDEPENDENT
from .intervals import Interval, items_interval
from .resolution import draws_to_resolve, items_to_resolve, samples_to_resolve
from .significance import effect_size, holm, mcnemar, smallest_p
from .summary import Scored, of_cells

Pairs = Sequence[tuple[Trial, Trial]]


def differences(trials: Iterable[Trial], experiments: Sequence[str], scored: Scored) -> tuple[Difference, ...]:
    """Each experiment less its random layers, and less the first experiment; over the seeds that both have.

    Raises DamageError.
    """
    cells = of_cells(trials)
    found = []
    for (representation, experiment, control), cell in cells.items():
        if control != NO_CONTROL or experiment not in experiments:
            continue
        for other, other_control in _others(experiment, experiments):
            of_seed = {trial.seed: trial for trial in cells.get((representation, other, other_control), ())}
            pairs = [(trial, of_seed[trial.seed]) for trial in cell if trial.seed in of_seed]
            if pairs:
                found.append(paired_difference(pairs, other, other_control, scored))
    return corrected(found)


def paired_difference(pairs: Pairs, other: str, other_control: str, scored: Scored) -> Difference:
    """The first of each pair less the second, which has the same seed. Raises DamageError."""
    compared = _by_items(pairs, scored) if scored.sampling == GIVEN else _by_seeds(pairs, scored)
    first = pairs[0][0]
    return Difference(
        representation=first.representation,
        experiment=first.experiment,
        other=other,
        other_control=other_control,
        num_seeds=len(pairs),
        mean=compared.interval.mean,
        ci95=compared.interval.bounds,
        p=compared.p,
        test=compared.test if compared.p is not None else "",
        effect_size=compared.effect_size,
        smallest_p=smallest_p(compared.num_pairs),
        to_resolve=compared.to_resolve,
    )


def corrected(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """With `p_holm`, over all that have a p."""
    p_holm = iter(holm([each.p for each in found if each.p is not None]))
    return tuple(each if each.p is None else replace(each, p_holm=next(p_holm)) for each in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What pairs come to."""

    interval: Interval
    """Of the mean difference."""
    p: float | None
    """As `Difference.p`, like the two that follow."""
    test: str
    """How."""
    effect_size: float | None
    """d_z."""
    num_pairs: int
    """Of the things that are thought of as drawn: seeds, test items or groups."""
    to_resolve: str
    """As `Difference.to_resolve`."""


def _by_seeds(pairs: Pairs, scored: Scored) -> _Compared:
    cell = [one for one, _ in pairs]
    off_S = np.array([one.test_accuracy - other.test_accuracy for one, other in pairs])
    interval = scored.seeds_interval(off_S.tolist(), cell, difference=True)
    num_rest, num_test = scored.num_rest(cell), float(np.mean([trial.num_test for trial in cell]))
    if scored.sampling == INDEPENDENT:
        test = f"Student's paired t over {len(pairs)} independent draws, two-sided (1908)"
        sizes = [trial.num_train + trial.num_validation + trial.num_test for trial in cell]
        to_resolve = draws_to_resolve(interval, len(pairs), float(np.mean(sizes)))
    else:
        test = f"corrected resampled t over {len(pairs)} resplits, paired, two-sided (Nadeau & Bengio 2003)"
        to_resolve = samples_to_resolve(interval, len(pairs), num_rest, num_test)
    return _Compared(
        interval=interval,
        p=interval.p,
        test=test,
        effect_size=effect_size(off_S),
        num_pairs=len(pairs),
        to_resolve=to_resolve,
    )


def _by_items(pairs: Pairs, scored: Scored) -> _Compared:
    off_SM = np.stack([scored.correct(one).astype(np.int64) - scored.correct(other) for one, other in pairs])
    if (off_SM == off_SM[0]).all():  # seeds that change nothing are one head
        off_SM = off_SM[:1]
    labels, groups = scored.labels(pairs[0][0]), scored.groups
    interval = items_interval(off_SM, groups, labels, difference=True, heads=scored.heads)
    num_seeds, num_items = off_SM.shape
    p = interval.p
    if num_seeds == 1 and groups is None:
        p, num_pairs = mcnemar(off_SM[0])
        test = f"McNemar's exact test of one pair of heads, by the {num_pairs} of {num_items} test items that one has "
        test += "right and the other wrong, two-sided (1947)"
    else:
        num_pairs = num_items if groups is None else _num_groups(groups)
        unit = "items" if groups is None else "groups of items"
        seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
        test = f"Student's t with the variance of {num_pairs} test {unit} and {seeds}, both drawn (two-way random "
        test += "effects), paired, two-sided"
    return _Compared(
        interval=interval,
        p=p,
        test=test,
        effect_size=effect_size(off_SM),
        num_pairs=num_pairs,
        to_resolve=items_to_resolve(interval, num_seeds, num_items),
    )


def _num_groups(groups: Sequence[str | None]) -> int:
    """Groups and items without one."""
    return len({name for name in groups if name is not None}) + sum(name is None for name in groups)


def _others(experiment: str, experiments: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield experiment, RANDOM_LAYERS
    if experiment != experiments[0]:
        yield experiments[0], NO_CONTROL
