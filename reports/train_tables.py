"""The tables of controlled training: conditions, runs, final values, time, arms, the parameter audit, events."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from fovcache.probes.train.result import DONE, Condition, ParameterGroup, Run, TrainSuite

from . import numbers
from .figures import is_drawable
from .names import listed, shown
from .table import ABSENT, Cell, Table, accuracy, count, size, table, text
from .train_forest import HOLDS, number_form
from .train_runs import (
    arms,
    diagnostics,
    done,
    in_order,
    look_names,
    metric_of,
    of_control,
    runs_of,
    tasks,
    value_names,
)
from .train_time import PARTS

MAX_VALUES = 8
"""Values of a table of final ones; the result's file has all."""
MAX_EVENTS = 100
_REASON_LETTERS = 300


def train_tables(suite: TrainSuite, prefix: str = "") -> dict[str, Table]:
    """By name: `conditions`, `control`, `diagnostics`, `runs`, `finals`, `looks`, `time`, `arms`, `parameters` and
    `events`; empty ones too.

    Their ids begin with `prefix`.
    """
    verdict, looks = suite.verdict, look_names(suite)
    return {
        "conditions": _conditions(
            f"{prefix}conditions",
            "Conditions of the verdict; a benefit is claimed only if all of them hold.",
            verdict.conditions if verdict else (),
        ),
        "control": _conditions(
            f"{prefix}control",
            "The same comparison on the negative control, where a finer look cannot help, so that this must not hold.",
            of_control(suite),
        ),
        "diagnostics": _conditions(
            f"{prefix}diagnostics",
            "Diagnostic, biased: two modes of one model that was trained for one of them. This proves nothing.",
            diagnostics(suite),
            is_diagnostic=True,
        ),
        "runs": _runs(suite, f"{prefix}runs"),
        "finals": _finals(suite, f"{prefix}finals", [name for name in value_names(suite) if name not in looks]),
        "looks": _finals(suite, f"{prefix}looks-table", looks),
        "time": _time(suite, f"{prefix}time-table"),
        "arms": _arms(suite, f"{prefix}arms-table"),
        "parameters": _parameters(suite, f"{prefix}parameters"),
        "events": _events(suite, f"{prefix}events"),
    }


def _conditions(id: str, caption: str, conditions: Sequence[Condition], *, is_diagnostic: bool = False) -> Table:
    columns = ("condition", *(() if is_diagnostic else ("<holds",)), "<what was found", "mean", "interval")
    rows = []
    for each in conditions:
        form = number_form(each)
        level = f"{numbers.percent(each.level)} level".replace(".0", "") if each.ci else ""
        rows.append(
            [
                text(each.name),
                *(() if is_diagnostic else (text(HOLDS[each.holds]),)),
                Cell(text=shown(each.said, _REASON_LETTERS)),
                ABSENT if each.mean is None else _number(each.mean, form(each.mean)),
                Cell(text=numbers.spanned(each.ci, form), note=level),
            ]
        )
    return table(id, caption, columns, rows)


def _runs(suite: TrainSuite, id: str) -> Table:
    metric = metric_of(suite)
    columns = ("arm", "<task", "seed", "<state", f"last {_heading(metric)}", "samples", "steps", "samples/s",
               "waiting for batches", "any kernel ran", "peak memory", "taken up again")  # fmt: skip
    rows = (
        [
            text(run.arm),
            text(run.task),
            count(run.seed),
            text(run.state, shown(run.reason, _REASON_LETTERS)),
            _number(run.final[metric]) if metric in run.final else ABSENT,
            count(run.samples_seen),
            count(run.steps),
            _number(run.samples_per_second),
            accuracy(run.data_wait_share),
            ABSENT if run.kernel_active_share is None else accuracy(run.kernel_active_share),
            size(run.peak_memory_bytes),
            count(run.num_resumed),
        ]
        for run in in_order(suite)
    )
    caption = (
        f"Runs. Last {shown(metric, 40)}: on the validation set, after the samples that the run came to. Samples a "
        "second and shares: of wall time without evaluations and checkpoints, since the run was last started. Any "
        "kernel ran: the share of time that any kernel ran on the GPU, by NVML; how much of the GPU it kept busy it "
        "does not say. Peak memory: of the device, or of the process on the CPU."
    )
    return table(id, caption, columns, rows)


def _finals(suite: TrainSuite, id: str, names: Sequence[str]) -> Table:
    """Empty without names."""
    rows = []
    for task in tasks(suite) if names else ():
        for arm in arms(suite):
            runs = runs_of(suite, task, arm)
            finished = done(runs)
            if runs:
                seeds = count(len(finished), f"of {numbers.count(len(runs))}" if len(finished) < len(runs) else "")
                rows.append([text(arm), text(task), seeds, *(_over(finished, name) for name in names[:MAX_VALUES])])
    caption = (
        "Values of the last evaluation: mean over the seeds that are done, and in small letters the lowest and the "
        "highest of them where they differ."
    )
    if len(names) > MAX_VALUES:
        caption += f" {numbers.count(len(names) - MAX_VALUES)} more values are in the result's file alone."
    return table(id, caption, ("arm", "<task", "seeds", *(_heading(name) for name in names[:MAX_VALUES])), rows)


def _over(runs: Sequence[Run], name: str) -> Cell:
    values = [run.final[name] for run in runs if name in run.final and is_drawable(run.final[name])]
    if not values:
        return ABSENT
    low, high = _plain(min(values)), _plain(max(values))
    return _number(statistics.fmean(values), note="" if low == high else f"{low} to{numbers.SPACE}{high}")


def _time(suite: TrainSuite, id: str) -> Table:
    columns = ("run", "planned", "took", "took / planned", *PARTS.values())
    rows = []
    for run in in_order(suite):
        plan = run.plan
        is_whole = plan is not None and run.state == DONE and not run.num_resumed and plan.spent.wall_s > 0
        within = numbers.spanned(plan.wall_ci95_s, numbers.long_duration) if plan and plan.wall_ci95_s else ""
        quotient = run.spent.wall_s / plan.spent.wall_s if plan is not None and is_whole else None
        rows.append(
            [
                text(f"{run.arm}, {run.task}, seed {run.seed}"),
                ABSENT
                if plan is None
                else Cell(text=numbers.long_duration(plan.spent.wall_s), value=plan.spent.wall_s, note=within),
                Cell(text=numbers.long_duration(run.spent.wall_s), value=run.spent.wall_s),
                ABSENT if quotient is None else _number(quotient, numbers.ratio(quotient)),
                *(
                    Cell(
                        text=numbers.long_duration(getattr(run.spent, part)),
                        value=getattr(run.spent, part),
                        note=f"planned {numbers.long_duration(getattr(plan.spent, part))}" if plan else "",
                    )
                    for part in PARTS
                ),
            ]
        )
    caption = (
        "Time of runs as planned from a measured warm-up, with its 95 % interval, and as it was since the run was last "
        "started. The quotient is of runs that came to their end at once."
    )
    return table(id, caption, columns, rows)


def _arms(suite: TrainSuite, id: str) -> Table:
    rows = [[text(arm), Cell(text=shown(change, _REASON_LETTERS))] for arm, change in suite.arms.items()]
    return table(id, "Arms, and what each changes of the base.", ("arm", "<changes"), rows)


def _parameters(suite: TrainSuite, id: str) -> Table:
    """One row a part for all arms of which it is the same."""
    found: dict[tuple[ParameterGroup, ...], list[str]] = {}
    for run in in_order(suite):
        if run.parameters:
            names = found.setdefault(run.parameters, [])
            names += [] if run.arm in names else [run.arm]
    rows = [row for groups, names in found.items() for row in _audit(listed(names), groups)]
    caption = (
        "Parameters by part, audited before training: trained ones receive a gradient; unused ones could be trained "
        "and receive none in this configuration; frozen ones are not to be trained."
    )
    return table(id, caption, ("part", "<arms", "trained", "unused", "frozen"), rows)


def _audit(arm: str, groups: Sequence[ParameterGroup]) -> Iterator[list[Cell]]:
    for each in groups:
        yield [text(each.part), Cell(text=arm), count(each.trained), count(each.unused), count(each.frozen)]
    if len(groups) > 1:
        sums = (sum(getattr(each, name) for each in groups) for name in ("trained", "unused", "frozen"))
        yield [Cell(text="all parts"), Cell(text=arm), *map(count, sums)]


def _events(suite: TrainSuite, id: str) -> Table:
    every = [(run, event) for run in in_order(suite) for event in run.events]
    rows = (
        [
            text(f"{run.arm}, {run.task}, seed {run.seed}"),
            Cell(text=shown(event, _REASON_LETTERS)),
        ]
        for run, event in every[:MAX_EVENTS]
    )
    caption = "Events of runs that a reader should know of."
    if len(every) > MAX_EVENTS:
        caption += f" {numbers.count(len(every) - MAX_EVENTS)} more are in the result's file alone."
    return table(id, caption, ("run", "<event"), rows)


def _heading(name: str) -> str:
    """Of a value, broken between its words where the column is narrow."""
    return shown(name.replace("_", " "), 40)


def _plain(value: float) -> str:
    return numbers.digits(value).replace("-", "−")


def _number(value: float, said: str | None = None, note: str = "") -> Cell:
    """A number that may be none."""
    return Cell(text=_plain(value) if said is None else said, value=value if is_drawable(value) else None, note=note)
