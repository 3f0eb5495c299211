"""Controlled training as tables and sentences of texts: what the command prints and its page holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fovcache.console import human_bytes, human_seconds

from ...tables.ablation_tables import TextTable
from ..plan import plan_against_actual
from ..result import DONE, FAILED, MAIN, STOPPED, Plan, Run, TrainSuite, Verdict
from .verdict import MIN_SEEDS

_NONE = "–"
_HOLDS = {True: "yes", False: "no", None: "open"}
_PARTS = ("compute", "waiting for data", "evaluation", "checkpoints", "the rest")
_MOST_VALUES = 8
"""Columns of final values; `train.json` has all."""


def shown_tables(suite: TrainSuite) -> Iterator[TextTable]:
    """All that have rows."""
    tables = (
        runs_table(suite),
        finals_table(suite),
        arms_table(suite),
        verdict_table("Verdict", suite.verdict),
        verdict_table("The same comparison on the negative control", suite.control_verdict),
        time_table(suite),
        parameters_table(suite),
    )
    return (table for table in tables if table.rows)


def runs_table(suite: TrainSuite) -> TextTable:
    """One row for each run, failed ones too."""
    metric = metric_of(suite)
    rows = [
        (
            run.arm,
            run.task,
            str(run.seed),
            run.state,
            _number(run.final.get(metric)),
            f"{run.samples_seen:,}",
            f"{run.samples_per_second:,.0f}" if run.samples_per_second else _NONE,
            f"{run.data_wait_share:.1%}" if run.samples_per_second else _NONE,
            human_bytes(run.peak_memory_bytes) if run.peak_memory_bytes else _NONE,
            str(run.num_resumed),
        )
        for run in suite.runs
    ]
    columns = (
        "arm",
        "task",
        ">seed",
        "state",
        f">{metric}",
        ">samples",
        ">samples/s",
        ">data wait",
        ">memory",
        ">resumed",
    )
    return TextTable(title="Runs", columns=columns, rows=tuple(rows))


def finals_table(suite: TrainSuite) -> TextTable:
    """Means of the last evaluations over the seeds that are done, with the lowest and the highest."""
    done = [run for run in suite.runs if run.state == DONE]
    every = dict.fromkeys(name for run in done for name in run.final)
    names = [name for name in dict.fromkeys((metric_of(suite), *every)) if name in every][:_MOST_VALUES]
    rows = []
    for arm, task in dict.fromkeys((run.arm, run.task) for run in done):
        finals = [run.final for run in done if (run.arm, run.task) == (arm, task)]
        cells = (_spread([final[name] for final in finals if name in final]) for name in names)
        rows.append((arm, task, str(len(finals)), *cells))
    columns = ("arm", "task", ">seeds", *(f">{name}" for name in names))
    return TextTable(title="Final values: mean (lowest to highest)", columns=columns, rows=tuple(rows))


def arms_table(suite: TrainSuite) -> TextTable:
    """One row for each arm, and one for the control."""
    rows = [*suite.arms.items(), *([("control task", suite.control)] if suite.control else [])]
    return TextTable(title="Arms", columns=("arm", "changes"), rows=tuple(rows))


def verdict_table(title: str, verdict: Verdict | None) -> TextTable:
    """One row for each condition, and for what is only a diagnostic."""
    rows: list[tuple[str, ...]] = []
    if verdict is not None:
        rows = [(each.name, _HOLDS[each.holds], each.said) for each in verdict.conditions]
        rows += [(each.name, _NONE, each.said) for each in verdict.diagnostics]
    columns = ("condition", "holds", "found")
    return TextTable(title=title, columns=columns, rows=tuple(rows))


def time_table(suite: TrainSuite) -> TextTable:
    """What was planned beside what it took, in all and by part, of runs that were done in one go."""
    rows = []
    for run in suite.runs:
        parts = {row.part: row for row in plan_against_actual(run)}
        if not parts:
            continue
        wall = parts.pop("wall")
        bounds = run.plan.wall_ci95_s if run.plan else None
        within = _NONE if bounds is None else f"{_seconds(bounds[0])} to {_seconds(bounds[1])}"
        ratio = _NONE if wall.ratio is None else f"{wall.ratio:.2f}"
        each = (f"{_seconds(row.planned_s)} → {_seconds(row.actual_s)}" for row in parts.values())
        rows.append((_name(run), _seconds(wall.planned_s), within, _seconds(wall.actual_s), ratio, *each))
    columns = ("run", ">planned", "95 % interval", ">took", ">took / planned", *_PARTS)
    return TextTable(title="Time, planned → taken", columns=columns, rows=tuple(rows))


def plans_table(suite: TrainSuite) -> TextTable:
    """One row for each run that is only planned."""
    rows = [_plan_row(run, run.plan) for run in suite.runs if run.plan is not None]
    columns = (
        "run",
        ">samples",
        ">steps",
        ">wall time",
        "95 % interval",
        *(f">{part}" for part in _PARTS),
        ">disk",
        ">memory",
        ">steps measured",
        ">dropped",
    )
    return TextTable(title="Plan, of one seed of each arm and task", columns=columns, rows=tuple(rows))


def _plan_row(run: Run, plan: Plan) -> tuple[str, ...]:
    spent = plan.spent
    parts_s = spent.compute_s, spent.data_s, spent.evaluation_s, spent.checkpoint_s, spent.other_s
    bounds = plan.wall_ci95_s
    return (
        _name(run),
        f"{plan.samples:,}",
        f"{plan.steps:,}",
        _seconds(spent.wall_s),
        _NONE if bounds is None else f"{_seconds(bounds[0])} to {_seconds(bounds[1])}",
        *map(_seconds, parts_s),
        human_bytes(plan.disk_bytes),
        human_bytes(plan.memory_bytes),
        str(plan.warmup_steps),
        str(plan.dropped_steps),
    )


def parameters_table(suite: TrainSuite) -> TextTable:
    """The audit: one row for each part, once for all arms of which it is the same."""
    found: dict[object, list[str]] = {}
    for run in suite.runs:
        if run.parameters:
            names = found.setdefault(run.parameters, [])
            names += [] if run.arm in names else [run.arm]
    rows = [
        (", ".join(names), each.part, f"{each.trained:,}", f"{each.unused:,}", f"{each.frozen:,}")
        for run in suite.runs
        if run.parameters in found
        for names in (found.pop(run.parameters),)
        for each in run.parameters
    ]
    columns = ("arms", "part", ">trained", ">unused", ">frozen")
    return TextTable(title="Parameters, audited before training", columns=columns, rows=tuple(rows))


def sentences(suite: TrainSuite) -> Iterator[str]:
    """What the tables are of, what went wrong, and what may be said."""
    runs = suite.runs
    states = ", ".join(
        f"{num} {state}" for state in (DONE, STOPPED, FAILED) if (num := sum(run.state == state for run in runs))
    )
    yield f"dataset {suite.dataset or 'not known'} of cache {suite.cache}; runs: {states or 'none'}"
    validation = {(run.task, run.num_validation, run.validation_hash) for run in runs if run.num_validation}
    for task, num, digest in sorted(validation):
        yield f"{task} task: validated on {num:,} samples, {digest[:16]}"
    for run in runs:
        if run.state != DONE:
            yield f"{_name(run)} {run.state}: {run.reason}"
    for run in runs:
        yield from (f"{_name(run)}: {event}" for event in run.events)
    yield from verdict_sentences(suite)


def plan_sentences(suite: TrainSuite, num_seeds: int, jobs: int) -> Iterator[str]:
    """What all runs will take together, as those do that were planned, one of each arm and task."""
    plans = [run.plan for run in suite.runs if run.plan is not None]
    for run in suite.runs:
        if run.plan is None:
            yield f"{_name(run)} has no plan: {run.reason}"
    if not plans:
        return
    wall_s = num_seeds * sum(plan.spent.wall_s for plan in plans)
    disk = human_bytes(num_seeds * sum(plan.disk_bytes for plan in plans))
    yield (
        f"all {num_seeds * len(plans)} runs: {_seconds(wall_s / jobs)}, {jobs} at a time, and {disk} of disk; an "
        "interval is of one run, if the machine stays as busy as it was in the warm-up"
    )


def verdict_sentences(suite: TrainSuite) -> Iterator[str]:
    """What may be said; nothing where there is no verdict."""
    if suite.verdict is None:
        return
    num = len({run.seed for run in suite.runs})
    if num >= MIN_SEEDS:
        yield (
            f"{num} seeds: no exact paired test could go below p = {2 ** (1 - num):.3g}, so the intervals rest on "
            "Student's t, which takes differences to be normal"
        )
    yield f"verdict: {suite.verdict.sentence}"
    if suite.control_verdict is not None:
        yield f"control: {suite.control_verdict.sentence}"


def metric_of(suite: TrainSuite) -> str:
    """The value that arms are compared by."""
    return suite.verdict.metric if suite.verdict else "loss"


def _name(run: Run) -> str:
    return f"{run.arm}{'' if run.task == MAIN else ', control'}, seed {run.seed}"


def _seconds(seconds: float) -> str:
    return human_seconds(seconds) if seconds >= 1 or not seconds else f"{seconds * 1000:.3g} ms"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return _NONE
    mean = _number(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"
