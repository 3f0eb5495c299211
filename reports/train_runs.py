"""The runs of controlled training in the order in which figures and tables show them, and what seeds have in common."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fovcache.probes.train.result import BASE, CONTROL, DONE, MAIN, Condition, Run, TrainSuite

from .figures import is_drawable
from .names import shown
from .numbers import count

TASK_NAMES = {MAIN: "main task", CONTROL: "negative control"}
_LOOKS = ("entropy", "diversity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of several seeds after as many samples."""

    samples: int
    """Training samples seen."""
    mean: float
    """Over the seeds."""
    low: float
    """The smallest."""
    high: float
    """The largest."""
    num: int
    """Seeds."""


def task_name(task: str) -> str:
    """In words."""
    return TASK_NAMES.get(task, task)


def tasks(suite: TrainSuite) -> list[str]:
    """Those that have runs, the main one first."""
    there = dict.fromkeys(run.task for run in suite.runs)
    return [*(task for task in TASK_NAMES if task in there), *(task for task in there if task not in TASK_NAMES)]


def arms(suite: TrainSuite) -> list[str]:
    """Those that have runs: the base, then the configuration's order."""
    there = dict.fromkeys(run.arm for run in suite.runs)
    return [arm for arm in dict.fromkeys((BASE, *suite.arms, *there)) if arm in there]


def runs_of(suite: TrainSuite, task: str, arm: str) -> list[Run]:
    """By seed."""
    return sorted((run for run in suite.runs if (run.task, run.arm) == (task, arm)), key=lambda run: run.seed)


def in_order(suite: TrainSuite) -> list[Run]:
    """By task, arm and seed."""
    return [run for task in tasks(suite) for arm in arms(suite) for run in runs_of(suite, task, arm)]


def done(runs: Iterable[Run]) -> list[Run]:
    """Those that came to their end."""
    return [run for run in runs if run.state == DONE]


def metric_of(suite: TrainSuite) -> str:
    """The value that arms are compared by."""
    return suite.verdict.metric if suite.verdict else "loss"


def value_names(suite: TrainSuite) -> list[str]:
    """Of all evaluations: the compared value, the loss, then as they come."""
    found = dict.fromkeys(name for run in suite.runs for each in run.evaluations for name in each.values)
    return [name for name in dict.fromkeys((metric_of(suite), "loss", *found)) if name in found]


def of_control(suite: TrainSuite) -> list[Condition]:
    """What the comparison says on the negative control alone: conditions that are none of the verdict's own."""
    own = suite.verdict.conditions if suite.verdict else ()
    return [each for each in (suite.control_verdict.conditions if suite.control_verdict else ()) if each not in own]


def diagnostics(suite: TrainSuite) -> list[Condition]:
    """What proves nothing, of both tasks."""
    verdicts = (suite.verdict, suite.control_verdict)
    return [each for verdict in verdicts if verdict for each in verdict.diagnostics]


def look_names(suite: TrainSuite) -> list[str]:
    """Of the values that say how queries look: entropies of attention, diversity of queries."""
    return [name for word in _LOOKS for name in value_names(suite) if word in name]


def series(run: Run, name: str) -> list[tuple[int, float]]:
    """(samples seen, value) of a run's evaluations that have it."""
    return [
        (each.samples_seen, each.values[name])
        for each in run.evaluations
        if name in each.values and is_drawable(each.values[name])
    ]


def over_seeds(runs: Sequence[Run], name: str) -> list[Point]:
    """Of each number of samples that any of the runs has the value after."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for samples, value in series(run, name):
            values.setdefault(samples, []).append(value)
    return [
        Point(samples=samples, mean=statistics.fmean(found), low=min(found), high=max(found), num=len(found))
        for samples, found in sorted(values.items())
    ]


def sizes(suite: TrainSuite) -> str:
    """n of seeds and of validation samples, for captions."""
    every = [runs for task in tasks(suite) for arm in arms(suite) if (runs := runs_of(suite, task, arm))]
    ended = any(run.state != DONE for run in suite.runs)
    of_done = f", {_range(len(done(runs)) for runs in every)} of them done" if ended else ""
    return f"Seeds of each arm: n = {_range(map(len, every))}{of_done}; {validation(suite)}."


def validation(suite: TrainSuite) -> str:
    """How many samples the validation sets have."""
    return f"{_range(run.num_validation for run in suite.runs)} validation samples"


def states(suite: TrainSuite) -> str:
    """`27 done, 2 failed`."""
    found: dict[str, int] = {}
    for run in suite.runs:
        found[run.state] = found.get(run.state, 0) + 1
    return ", ".join(f"{count(number)} {shown(state, 20)}" for state, number in found.items())


def ended_early(suite: TrainSuite) -> Iterator[Run]:
    """Runs that failed or were stopped."""
    return (run for run in in_order(suite) if run.state != DONE)


def _range(numbers: Iterable[int]) -> str:
    every = sorted(set(numbers)) or [0]
    return count(every[0]) if len(every) == 1 else f"{count(every[0])} to {count(every[-1])}"
