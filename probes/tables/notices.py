"""What a reader of an ablation should know beside its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..config import AblationConfig
from ..features import AblationInput
from ..protocol import Protocol
from ..result import Trial
from ..splits import GIVEN
from ..statistics.intervals import ONE_HEAD, Interval
from ..statistics.leaks import ALARM, shuffled_cells


def notices(
    config: AblationConfig,
    given: AblationInput,
    protocol: Protocol,
    trials: Sequence[Trial],
    intervals: Sequence[Interval],
) -> tuple[str, ...]:
    """Sentences, each once."""
    return tuple(dict.fromkeys(_notices(config, given, protocol, trials, intervals)))


def _notices(
    config: AblationConfig,
    given: AblationInput,
    protocol: Protocol,
    trials: Sequence[Trial],
    intervals: Sequence[Interval],
) -> Iterator[str]:
    samples, sets = given.samples, given.sets
    if samples.num_missing:
        total = len(samples) + samples.num_missing
        yield f"{samples.num_missing} of {total} samples of {given.ref.name} lack a layer and are left out everywhere"
    if protocol.test_is_fixed and protocol.heads == ONE_HEAD and len(config.seeds) > 1:
        why = "all three splits are given" if protocol.rule.kind == GIVEN else "all seeds have the split of the first"
        yield f"{why}, so that seeds decide nothing but shuffled labels and random layers"
    for experiment in sets.experiments if config.controls.random_layers and sets.left_out else ():
        if not sets.is_proper_subset(experiment):
            yield (
                f"{experiment} has no random layers beside it, since it takes all that experiments name; an experiment "
                'of all layers (such as all = ["**"]) gives some to draw from'
            )
    cells = shuffled_cells(trials, len(samples.classes))
    if above := [cell for cell in cells if cell.p_holm < ALARM]:
        worst = min(above, key=lambda cell: cell.p)
        yield (
            f"{len(above)} of {len(cells)} cells of shuffled labels score above chance (p < {ALARM:.2f} after Holm's "
            f"correction), {worst.representation} of {worst.experiment} by {worst.excess:.3f}: something tells heads "
            "the labels of test, and no accuracy here is to be believed until it is found"
        )
    for reason, num in Counter(interval.reason for interval in intervals).items():
        if reason is not None:
            yield f"{num} of {len(intervals)} estimates have no interval: {reason}"
    for note, num in Counter(note for trial in trials for note in trial.notes).items():
        yield f"{num} of {len(trials)} trials: {note}"
