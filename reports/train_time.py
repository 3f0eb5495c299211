"""Planned beside actual time of training runs, by what it goes to: the mean over the seeds of each arm."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fovcache.probes.train.result import Run, Spent, TrainSuite

from .figures import HATCH_WAIT, drawable, drawn, is_drawable, new_figure
from .numbers import TimeUnit, long_time_unit
from .palette import LIGHT, Theme, mixed, stage_colours
from .train_runs import arms, done, runs_of, task_name, tasks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "compute_s": "forward, backward, optimiser",
    "data_s": "waiting for batches",
    "evaluation_s": "evaluation",
    "checkpoint_s": "checkpoints",
    "other_s": "other",
}
"""Fields of `Spent`, in the order in which they are drawn, in words."""
MAX_ROWS = 40
"""More are cut; the table has all."""
_STAGES = dict(zip(PARTS, ("forward", "load", "vae_encode", "write", "copy"), strict=True))
_ROW_IN, _BAR = 0.46, 0.33


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRow:
    """The runs of an arm on a task that ran from beginning to end at once."""

    name: str
    """Arm, and task where there are several."""
    runs: tuple[Run, ...]
    """At least one."""

    @property
    def planned(self) -> tuple[Run, ...]:
        """Those that have a plan."""
        return tuple(run for run in self.runs if run.plan is not None)


def at_once(run: Run) -> bool:
    """Whether a run's time is of all of it: not of what was left when it was taken up again."""
    return not run.num_resumed and is_drawable(run.spent.wall_s) and run.spent.wall_s > 0


def time_rows(suite: TrainSuite) -> list[TimeRow]:
    """By task and arm, as far as they fit."""
    rows = []
    for task in tasks(suite):
        for arm in arms(suite):
            runs = tuple(run for run in done(runs_of(suite, task, arm)) if at_once(run))
            name = f"{drawable(arm, 24)}, {drawable(task_name(task), 20)}" if len(tasks(suite)) > 1 else drawable(arm)
            rows += [TimeRow(name=name, runs=runs)] if runs else []
    return rows[:MAX_ROWS]


def draw_time(suite: TrainSuite, theme: Theme = LIGHT) -> Figure | None:
    """Two bars for each arm on each task; None where no run came to its end at once."""
    rows = time_rows(suite)
    if not rows:
        return None
    figure = new_figure(_ROW_IN * len(rows) + 1.1)
    axes = figure.subplots()
    unit = long_time_unit(run.spent.wall_s for row in rows for run in row.runs)
    for place, row in enumerate(rows):
        planned = [run.plan for run in row.planned if run.plan is not None]
        if planned:
            wall_s = _draw_bar(axes, place - 0.19, [plan.spent for plan in planned], unit, theme, is_planned=True)
            ends = [plan.wall_ci95_s for plan in planned if plan.wall_ci95_s is not None]
            end = max([wall_s, *(_whisker(axes, place - 0.19, ends, unit, theme) if len(ends) == len(planned) else ())])
            _label(axes, place - 0.19, end / unit.seconds, f"planned {unit.text(wall_s)}", theme.muted)
        below = 0.19 if planned else 0.0
        wall_s = _draw_bar(axes, place + below, [run.spent for run in row.runs], unit, theme, is_planned=False)
        _label(axes, place + below, wall_s / unit.seconds, f"took {unit.text(wall_s)}", theme.ink)
    axes.set_yticks(range(len(rows)), labels=[row.name for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(left=0)
    axes.margins(x=0)
    axes.set_xlabel(f"wall time of a run, {unit.name}", fontsize=8)
    axes.xaxis.set_major_formatter("{x:,g}")
    _legend(figure, theme)
    return figure


def mean_spent(spent: Sequence[Spent], part: str) -> float:
    """Of a part, over runs."""
    return statistics.fmean(drawn(getattr(each, part)) for each in spent)


def _draw_bar(axes: Axes, y: float, spent: Sequence[Spent], unit: TimeUnit, theme: Theme, *, is_planned: bool) -> float:
    """Where it ends, in seconds."""
    left_s = 0.0
    for part, colour in _colours(theme).items():
        width_s = mean_spent(spent, part)
        axes.barh(
            y, width_s / unit.seconds, left=left_s / unit.seconds, height=_BAR, edgecolor=theme.paper, linewidth=0.4,
            color=mixed(colour, theme.paper, 0.5) if is_planned else colour,
            hatch=HATCH_WAIT if part == "data_s" else None,
        )  # fmt: skip
        left_s += width_s
    return left_s


def _whisker(
    axes: Axes, y: float, ends: Sequence[tuple[float, float]], unit: TimeUnit, theme: Theme
) -> tuple[float, float]:
    """Where it begins and ends, in seconds."""
    low, high = (statistics.fmean(drawn(each[end]) for each in ends) for end in (0, 1))
    axes.plot(
        [low / unit.seconds, high / unit.seconds], [y, y], color=theme.ink, linewidth=1.1, marker="|", markersize=5
    )
    return low, high


def _label(axes: Axes, y: float, end: float, text: str, colour: str) -> None:
    axes.annotate(text, (end, y), xytext=(6, -0.5), textcoords="offset points", va="center", fontsize=8, color=colour)


def _colours(theme: Theme) -> dict[str, str]:
    found = stage_colours(list(_STAGES.values()))
    return {part: theme.wait if part == "data_s" else found[stage] for part, stage in _STAGES.items()}


def _legend(figure: Figure, theme: Theme) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, edgecolor=theme.paper, hatch=HATCH_WAIT if part == "data_s" else None)
        for part, colour in _colours(theme).items()
    ]
    figure.legend(handles, list(PARTS.values()), loc="outside upper left", ncols=5, frameon=False)
