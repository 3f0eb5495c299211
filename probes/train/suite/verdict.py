"""The verdict: whether a finer look helps, which is claimed only if every condition holds.

Conditions are about final values on the validation set, smaller being better, paired by seed. All of them must hold
(an intersection-union test, Berger 1982), so that a false claim is no likelier than that of one of them. What cannot be
asked leaves its condition open, and then nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fovcache.errors import UsageError
from fovcache.trainable import COARSE, FINE

from ...statistics.equivalence import EQUIVALENCE_LEVEL, MeanInterval, equivalence, mean_interval
from ..config import VerdictChoice
from ..result import BASE, CONTROL, DONE, MAIN, Condition, Run, Verdict

MIN_SEEDS = 3
LEAST_COMPUTE = 0.8
"""An arm that is to match the base in compute must have computed for this share of its time at least."""
WITHIN = (COARSE, FINE)
"""The values of a model's own coarse and fine mode, where it has both."""
_EQUAL = 1e-9
"""Differences that differ by less, relative to the values, are equal but for rounding."""


class _Open(Exception):
    """A condition cannot be asked, for the reason that this says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Final values of two arms, by the seeds that both have."""

    seeds: tuple[int, ...]
    """In order."""
    one: tuple[float, ...]
    """Of the first arm."""
    other: tuple[float, ...]
    """Of the second."""

    def differences(self) -> tuple[float, ...]:
        """First less second, seed by seed."""
        return tuple(one - other for one, other in zip(self.one, self.other, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The answer to a condition."""

    holds: bool
    """Yes or no."""
    said: str
    """With its numbers."""
    interval: MeanInterval
    """Of differences, or of ratios."""
    per_seed: tuple[float, ...]
    """What it is the mean of."""


def judge(runs: Sequence[Run], choice: VerdictChoice) -> Verdict:
    """The verdict over all runs of a suite. Raises UsageError where runs to be compared have other validation sets."""
    _check_validation(runs, choice)
    conditions = (
        _ask(f"better than {choice.coarse}, an arm of its own", lambda: _better(runs, choice, choice.coarse)),
        _ask(
            f"better than {choice.coarse_matched}, matched in compute",
            lambda: _better(runs, choice, choice.coarse_matched, is_matched=True),
        ),
        _ask(f"{choice.shuffled} is worse", lambda: _shuffled(runs, choice)),
        _ask(f"{choice.random} is no better than {choice.coarse}", lambda: _random(runs, choice)),
        _equivalent(runs, choice),
    )
    helps = all(each.holds for each in conditions)
    return Verdict(
        helps=helps,
        sentence=_sentence(conditions),
        metric=choice.metric,
        conditions=conditions,
        diagnostics=tuple(_diagnostics(runs, MAIN)),
    )


def judge_control(runs: Sequence[Run], choice: VerdictChoice) -> Verdict | None:
    """What the same comparison says of the negative control, where it should say that there is no benefit; None
    without runs of it. Raises what `judge` does."""
    if not any(run.task == CONTROL for run in runs):
        return None
    _check_validation(runs, choice)
    better = _ask(
        f"better than {choice.coarse}, an arm of its own", lambda: _better(runs, choice, choice.coarse, CONTROL)
    )
    equivalent = _equivalent(runs, choice)
    helps = bool(better.holds) and equivalent.holds is False
    if helps:
        sentence = "a benefit on the control task, where there should be none: something else than the look differs"
    elif equivalent.holds:
        sentence = f"no benefit on the control task: {equivalent.said}"
    else:
        sentence = f"no benefit on the control task is shown, nor that there is none: {equivalent.said}"
    return Verdict(
        helps=helps,
        sentence=sentence,
        metric=choice.metric,
        conditions=(better, equivalent),
        diagnostics=tuple(_diagnostics(runs, CONTROL)),
    )


def _ask(name: str, ask: Callable[[], _Asked]) -> Condition:
    try:
        found = ask()
    except _Open as reason:
        return Condition(name=name, holds=None, said=f"open: {reason}")
    bounds = found.interval.low, found.interval.high
    return Condition(
        name=name, holds=found.holds, said=found.said, mean=found.interval.mean, ci=bounds, per_seed=found.per_seed
    )


def _better(
    runs: Sequence[Run], choice: VerdictChoice, other: str, task: str = MAIN, *, is_matched: bool = False
) -> _Asked:
    """The base less the other arm: all of the interval below 0."""
    pairs = _pairs(runs, BASE, other, task, choice.metric)
    said = _matched(runs, other, task) if is_matched else _same_samples(runs, other, task)
    found = _difference(pairs)
    text = f"{_what(BASE, other, found, pairs)}{said}"
    return _Asked(holds=found.high < 0, said=text, interval=found, per_seed=pairs.differences())


def _shuffled(runs: Sequence[Run], choice: VerdictChoice) -> _Asked:
    """The arm less the base: all of the interval above 0."""
    pairs = _pairs(runs, choice.shuffled, BASE, MAIN, choice.metric)
    _same_samples(runs, choice.shuffled, MAIN)
    found = _difference(pairs)
    text = _what(choice.shuffled, BASE, found, pairs)
    return _Asked(holds=found.low > 0, said=text, interval=found, per_seed=pairs.differences())


def _random(runs: Sequence[Run], choice: VerdictChoice) -> _Asked:
    """The arm less the coarse one: not all of the interval below 0."""
    pairs = _pairs(runs, choice.random, choice.coarse, MAIN, choice.metric)
    _same_samples(runs, choice.random, MAIN)
    found = _difference(pairs)
    text = _what(choice.random, choice.coarse, found, pairs)
    return _Asked(holds=found.high >= 0, said=text, interval=found, per_seed=pairs.differences())


def _equivalent(runs: Sequence[Run], choice: VerdictChoice) -> Condition:
    """The control task's ratio coarse/base is 1 within the tolerance."""
    name = f"the control's ratio {choice.coarse}/{BASE} is 1 within ±{choice.tolerance:.0%}"
    within = 1 - choice.tolerance, 1 + choice.tolerance
    try:
        pairs = _pairs(runs, choice.coarse, BASE, CONTROL, choice.metric)
        _same_samples(runs, choice.coarse, CONTROL)
        if min(*pairs.one, *pairs.other) <= 0:
            raise _Open(f"a ratio needs values above 0, and {choice.metric} is {min(*pairs.one, *pairs.other):.4g}")
        _difference(pairs)
    except _Open as reason:
        return Condition(
            name=name, holds=None, said=f"open: {reason}", level=EQUIVALENCE_LEVEL, neutral=1.0, within=within
        )
    ratios = tuple(one / other for one, other in zip(pairs.one, pairs.other, strict=True))
    holds, found = equivalence(ratios, choice.tolerance)
    said = (
        f"{choice.coarse} / {BASE} = {found.mean:.4f} on the control (90 % interval {found.low:.4f} to "
        f"{found.high:.4f}, {len(ratios)} seeds), {'within' if holds else 'not all of it within'} "
        f"{within[0]:.2f} to {within[1]:.2f}"
    )
    return Condition(
        name=name,
        holds=holds,
        said=said,
        mean=found.mean,
        ci=(found.low, found.high),
        level=EQUIVALENCE_LEVEL,
        neutral=1.0,
        per_seed=ratios,
        within=within,
    )


def _diagnostics(runs: Sequence[Run], task: str) -> Iterator[Condition]:
    """The ratio of the base's own two modes, of which only one was trained for."""
    finals = [run.final for run in runs if run.arm == BASE and run.task == task and run.state == DONE]
    ratios = tuple(
        final[WITHIN[0]] / final[WITHIN[1]]
        for final in finals
        if all(name in final and final[name] > 0 for name in WITHIN)
    )
    if not ratios:
        return
    found = mean_interval([math.log(ratio) for ratio in ratios]) if len(ratios) > 1 else None
    mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    yield Condition(
        name=f"diagnostic, biased: coarse/fine within the base, {task} task",
        holds=None,
        said=f"coarse/fine = {mean:.4f} within one model over {len(ratios)} seed{'' if len(ratios) == 1 else 's'} of "
        f"the {task} task; a model that is trained for its fine mode has a ratio above 1 also where a fine look cannot "
        "help",
        mean=mean,
        ci=None if found is None else (math.exp(found.low), math.exp(found.high)),
        neutral=1.0,
        per_seed=ratios,
    )


def _pairs(runs: Sequence[Run], one: str, other: str, task: str, metric: str) -> _Pairs:
    first, second = _finals(runs, one, task, metric), _finals(runs, other, task, metric)
    seeds = tuple(sorted(first.keys() & second.keys()))
    if len(seeds) < MIN_SEEDS:
        raise _Open(
            f"{one} and {other} share {len(seeds)} seed{'' if len(seeds) == 1 else 's'}, {MIN_SEEDS} are needed"
        )
    return _Pairs(seeds=seeds, one=tuple(first[seed] for seed in seeds), other=tuple(second[seed] for seed in seeds))


def _finals(runs: Sequence[Run], arm: str, task: str, metric: str) -> Mapping[int, float]:
    """By seed. A seed that failed is no reason to judge by the others: which fail may depend on the arm."""
    of_arm = [run for run in runs if run.arm == arm and run.task == task]
    if not of_arm:
        raise _Open(f"there is no run of {arm}{'' if task == MAIN else ' on the control task'}")
    unfinished = [run for run in of_arm if run.state != DONE]
    if unfinished:
        raise _Open(f"{arm}: {', '.join(f'seed {run.seed} {run.state}' for run in unfinished)}")
    for run in of_arm:
        if not math.isfinite(run.final.get(metric, math.nan)):
            raise _Open(f"{arm}, seed {run.seed}: there is no {metric} at the end")
    return {run.seed: run.final[metric] for run in of_arm}


def _difference(pairs: _Pairs) -> MeanInterval:
    values = pairs.differences()
    size = max(map(abs, (*pairs.one, *pairs.other)))
    if max(values) - min(values) <= _EQUAL * size:
        if max(map(abs, values)) <= _EQUAL * size:
            raise _Open(f"both arms are equal with all {len(values)} seeds, as if the setting were not read")
        raise _Open(f"all {len(values)} differences are equal, which says nothing of how much they could differ")
    return mean_interval(values)


def _what(one: str, other: str, found: MeanInterval, pairs: _Pairs) -> str:
    return (
        f"{one} − {other} = {found.mean:+.4g} (95 % interval {found.low:+.4g} to {found.high:+.4g}, "
        f"{len(pairs.seeds)} seeds)"
    )


def _same_samples(runs: Sequence[Run], other: str, task: str) -> str:
    """Empty. Raises _Open where the arms were trained on different numbers of samples."""
    seen = {arm: {run.samples_seen for run in runs if (run.arm, run.task) == (arm, task)} for arm in (BASE, other)}
    if seen[BASE] != seen[other]:
        said = ", ".join(f"{arm} {' and '.join(f'{num:,}' for num in sorted(nums))}" for arm, nums in seen.items())
        raise _Open(f"they saw different numbers of samples ({said})")
    return ""


def _matched(runs: Sequence[Run], other: str, task: str) -> str:
    """How long the arm computed beside the base. Raises _Open where that was much less."""
    spent = {
        arm: [run.spent.compute_s for run in runs if (run.arm, run.task) == (arm, task) and not run.num_resumed]
        for arm in (BASE, other)
    }
    if not all(spent.values()) or not sum(spent[BASE]):
        return "; how long they computed is not known, since runs were resumed"
    share = (sum(spent[other]) / len(spent[other])) / (sum(spent[BASE]) / len(spent[BASE]))
    if share < LEAST_COMPUTE:
        raise _Open(f"{other} computed for {share:.2f} of the base's time, so it is not matched: give it more samples")
    return f"; {other} computed for {share:.2f} of the base's time"


def _check_validation(runs: Sequence[Run], choice: VerdictChoice) -> None:
    """What is compared was evaluated on the same samples. Raises UsageError."""
    compared = (BASE, choice.coarse, choice.coarse_matched, choice.random, choice.shuffled)
    for task in (MAIN, CONTROL):
        found: dict[str, Run] = {}
        for run in runs:
            if run.task == task and run.arm in compared and run.state == DONE:
                found.setdefault(run.validation_hash, run)
        if len(found) > 1:
            said = ", ".join(f"{run.arm} seed {run.seed}: {digest[:12]}" for digest, run in found.items())
            raise UsageError(
                f"runs of the {task} task have different validation sets ({said}), so that no verdict can be given: "
                "let arms leave the dataset, the split and train.validation_samples alone"
            )


def _sentence(conditions: Sequence[Condition]) -> str:
    if all(each.holds for each in conditions):
        return f"a finer look helps: all {len(conditions)} conditions hold"
    states = {"does not hold": False, "cannot be asked": None}
    said = [
        f"{words}: {', '.join(names)}"
        for words, state in states.items()
        if (names := [each.name for each in conditions if each.holds is state])
    ]
    return f"no benefit is claimed; {'; '.join(said)}"
