"""What a reader of an ablation should know beside its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .config import AblationConfig
from .features import AblationInput
from .intervals import Interval
from .protocol import Protocol
from .result import Trial
from .splits import GIVEN, VALIDATION_NAMES


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
    if protocol.rule.kind == GIVEN and set(samples.splits or ()) & set(VALIDATION_NAMES) and len(config.seeds) > 1:
        yield "all three splits are given, so that seeds decide nothing but shuffled labels and random layers"
    for experiment in sets.experiments if config.controls.random_layers and sets.left_out else ():
        if not sets.is_proper_subset(experiment):
            yield (
                f"{experiment} has no random layers beside it, since it takes all that experiments name; an experiment "
                'of all layers (such as all = ["**"]) gives some to draw from'
            )
    for reason, num in Counter(interval.reason for interval in intervals).items():
        if reason is not None:
            yield f"{num} of {len(intervals)} estimates have no interval: {reason}"
    for note, num in Counter(note for trial in trials for note in trial.notes).items():
        yield f"{num} of {len(trials)} trials: {note}"
